"""A worker process: it has an engine of its own, draws what its supervisor sends, and says what it sees. It
knows no store and writes no results, so that one which was given up can change nothing.

    python -m jobs.workers.worker FD

is how launch.py starts it; FD is the worker's end of a socket pair.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.drawing import Drawing
    from pipeline.engine import Engine
    from pipeline.request import Job

LOOK = 0.5
"""Seconds: how often a worker looks how far its preload is, until that ends."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    gc.disable()  # while libraries are imported there is nothing to collect, and looking takes a fifth of it
    _end_with_parent()
    file = int(sys.argv[1])
    os.set_inheritable(file, False)  # what this process starts mustn't hold its pipe open
    connection = Connection(file)
    try:
        # Here, because they import torch: a parent that ends meanwhile takes this process with it.
        from jobs.workers.messages import Begin
        from pipeline.families import import_pipelines

        if not connection.poll():  # nobody waits for it yet
            import_pipelines()
        gc.freeze()
        gc.enable()
        begin = connection.recv()
        assert isinstance(begin, Begin)
        engine = begin.engine.engine()
        Worker(engine, connection).serve(begin.preload)
    except (EOFError, OSError):
        os._exit(0)  # the supervisor is gone, and nobody waits for what is being drawn


def _end_with_parent() -> None:
    """The parent alone decides when this process ends: what a terminal or a service manager sends to all of
    them doesn't; a SIGKILL of the parent does. One that has gone before this shows as a closed pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Worker:
    """The worker's side of the pipe."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine, self._connection = engine, connection
        self._sending = threading.Lock()
        self._said: Any = None

    def serve(self, preload: tuple[str, ...]) -> None:
        """Does what the supervisor says, until it is gone.

        Raises:
            EOFError, OSError: it is.
        """
        from jobs.workers.messages import Draw, Stop

        self._tell_standing()
        if preload:
            loading = self._engine.preload(*preload)
            threading.Thread(target=self._watch, args=(loading,), name="watches", daemon=True).start()
        while True:
            match self._connection.recv():
                case Draw(job):
                    self._draw(job)
                case Stop(job):
                    if drawing := self._engine.find(job):
                        drawing.stop()

    def _draw(self, job: Job) -> None:
        from jobs.workers.messages import Changed
        from pipeline.devices.threads import start_thread
        from pipeline.errors import StepwiseError

        drawing = None
        try:
            drawing = self._engine.start(job)
            start_thread(f"tells {job.short_id}", self._follow, drawing)
        except StepwiseError as error:
            if drawing is not None:
                drawing.stop()  # nobody would be told of it
            failure = {"phase": "failed", "error": str(error), "code": error.code}
            self._send(Changed(job.id, failure))

    def _follow(self, drawing: Drawing) -> None:
        """Tells a drawing's events."""
        from jobs.workers.messages import Changed
        from pipeline.errors import WorkerDied
        from pipeline.events import Event
        from pipeline.library_errors import DEVICE_LOST

        told = Event(drawing.job, warnings=drawing.job.warnings)
        for event in drawing.events():
            if event.last:
                self._tell_standing()  # first: with the last event the supervisor has its next job chosen
            self._send(Changed(drawing.job.id, event.changes(told)))
            told = event
        if told.code == WorkerDied.code:
            os._exit(DEVICE_LOST)

    def _watch(self, loading: threading.Thread) -> None:
        """Tells how far a preload is."""
        while loading.is_alive():
            self._tell_standing()
            loading.join(LOOK)
        self._tell_standing()

    def _tell_standing(self) -> None:
        from jobs.workers.messages import Standing

        engine = self._engine
        standing = Standing(engine.ready_models(), engine.preloads.all(), engine.gpu_memory())
        if standing != self._said:
            self._said = standing
            self._send(standing)

    def _send(self, message: object) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            os._exit(0)  # as in `main`


if __name__ == "__main__":
    main()
