"""A worker process: it has an engine of its own, draws what the server sends, and says what it sees. It knows
no store and writes no results, so that one which was given up can change nothing.

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
    from pipeline.engine import Engine
    from pipeline.events import Event
    from pipeline.request import Job
    from pipeline.run import Cancel

_PR_SET_PDEATHSIG = 1


def main() -> None:
    gc.disable()  # while libraries are imported there is nothing to collect, and looking takes a fifth of it
    _end_with_parent()
    file = int(sys.argv[1])
    os.set_inheritable(file, False)  # what this process starts mustn't hold its pipe open
    connection = Connection(file)
    try:
        # Here, because they import torch: a parent that ends meanwhile takes this process with it.
        from jobs.workers.messages import Configure
        from pipeline.families import import_pipelines

        if not connection.poll():  # nobody waits for it yet
            import_pipelines()
        gc.freeze()
        gc.enable()
        configure = connection.recv()
        assert isinstance(configure, Configure)
        Worker(configure.engine.engine(), connection).serve()
    except (EOFError, OSError):
        os._exit(0)  # the server is gone, and nobody waits for what is being drawn


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
        from pipeline.devices.serial_thread import SerialThread

        self._engine, self._connection = engine, connection
        self._thread = SerialThread("draws for the server")
        self._cancels: dict[str, Cancel] = {}
        self._sending = threading.Lock()
        self._told: Any = None

    def serve(self) -> None:
        """Does what the server says, until it is gone.

        Raises:
            EOFError, OSError: it is.
        """
        from jobs.workers.messages import CancelJob, CancelLoad, LoadModel, RunJob
        from pipeline.run import Cancel

        self._tell_status()
        while True:
            match message := self._connection.recv():
                case RunJob(job):
                    self._cancels[job.id] = Cancel()
                    self._thread.submit(self._run, job)
                case LoadModel(model):
                    self._cancels[model] = Cancel()
                    self._thread.submit(self._load, model)
                case CancelJob(name) | CancelLoad(name):
                    if (cancel := self._cancels.get(name)) is not None:
                        cancel.set()
                case _:
                    raise AssertionError(f"the server says nothing like {message!r}")

    def _run(self, job: Job) -> None:
        from pipeline.errors import WorkerDied
        from pipeline.library_errors import DEVICE_LOST

        last = self._engine.run(job, _Deltas(self, job).send, self._cancels[job.id])
        del self._cancels[job.id]
        if last.code == WorkerDied.code:
            os._exit(DEVICE_LOST)

    def _load(self, model: str) -> None:
        from jobs.workers.messages import Loaded, LoadProgress
        from pipeline.errors import StepwiseError, Stopped
        from pipeline.run import Preparation

        loaded = Loaded(model)
        try:
            report = Preparation(lambda *at: self.send(LoadProgress(model, *at)), self._cancels[model])
            self._engine.load(model, report)
        except Stopped:
            pass  # whoever cancelled it knows
        except StepwiseError as error:
            loaded = Loaded(model, str(error), error.code)
        del self._cancels[model]
        self._tell_status()
        self.send(loaded)

    def _tell_status(self) -> None:
        from jobs.workers.messages import WorkerStatus

        memory = [one.gpu_memory() for one in self._engine.executors.values()]
        status = WorkerStatus(self._engine.ready_models(), next((one for one in memory if one), None))
        if status != self._told:
            self._told = status
            self.send(status)

    def send(self, message: object) -> None:
        """Says something to the server; where that is gone, this process ends."""
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            os._exit(0)  # as in `main`


class _Deltas:
    """Tells the server a job's events, each as what differs from the one before."""

    def __init__(self, worker: Worker, job: Job) -> None:
        from pipeline.events import Event

        self._worker = worker
        self._told = Event(job, warnings=job.warnings)

    def send(self, event: Event) -> None:
        from jobs.workers.messages import EventDelta

        if event.last:
            self._worker._tell_status()  # first: with the last event the server chooses its next job
        changes = event.changes(self._told)
        self._told = event
        self._worker.send(EventDelta(event.job.id, changes))


if __name__ == "__main__":
    main()
