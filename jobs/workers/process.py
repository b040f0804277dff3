"""The parent's side of a worker process: starts it, starts a new one when it dies, and is an executor to
whoever has jobs to draw. What the worker says becomes an ordinary Drawing of this process.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Collection, Mapping
from multiprocessing.connection import Connection
from typing import Any

from jobs.workers.launch import Launched, launch
from jobs.workers.messages import Begin, Changed, Draw, Standing, Stop
from pipeline.devices.threads import start_thread
from pipeline.drawing import Drawing
from pipeline.engine import EngineSpec
from pipeline.errors import WorkerDied
from pipeline.events import LAST_PHASES
from pipeline.request import Job

log = logging.getLogger("stepwise")

LONGEST_PAUSE = 30.0
"""Seconds between two starts of workers that die without having drawn: 1, 2, 4 … up to this."""
STEADY = 30.0
"""Seconds: a worker that has lived as long has started well."""


class WorkerProcess:
    """A worker and its successors: an Executor. Safe to use from any thread."""

    def __init__(
        self, spec: EngineSpec, number: int = 0, preload: Collection[str] = (), spare: bool = False
    ) -> None:
        """Returns at once; `ready` once the first worker can draw.

        Args:
            spec: of the worker's engine.
            number: which of the GPUs that this process sees is the worker's, from 0; without GPUs it means
                nothing.
            preload: ids of the models that each worker makes ready at its start, in this order.
            spare: whether the next worker waits beside one that has started well, with all imported (some
                500 MB of host memory), so that a dead one's successor needs no more than to load.
        """
        self.restarts = 0
        """How many workers were started after the first one."""
        self._begin = Begin(spec, tuple(preload))
        self._number = number
        self._lock = threading.Lock()
        """Held while one of these changes, and while sending; never while receiving."""
        self._worker: Launched | None = None
        self._connection: Connection | None = None
        """The worker's, as long as it may be sent something."""
        self._spares = spare
        self._spare: Launched | None = None
        self._drawings: dict[str, Drawing] = {}
        self._standing: Standing | None = None
        self._reason = "The process that draws is starting."
        self._lost = ""
        self._killed = False
        self._closed = threading.Event()
        # One thread for all workers, as long as they live: Linux sends a child its PR_SET_PDEATHSIG when the
        # thread that started it ends.
        self._thread = start_thread(f"worker {number}", self._run)

    # The executor.

    def start(self, job: Job) -> Drawing:
        """As of Executor.

        Raises:
            WorkerDied: there is no worker now.
        """
        drawing = Drawing(job, on_stop=lambda: self._tell(Stop(job.id)))
        with self._lock:
            if self._connection is None or self._lost:
                raise WorkerDied(f"{self._reason} Try again in a minute.")
            self._drawings[job.id] = drawing
            with contextlib.suppress(OSError):  # it has just died: `_run` sees it too, and ends the drawing
                self._connection.send(Draw(job))
        return drawing

    def resident(self) -> Collection[str]:
        standing = self._standing
        return standing.resident if standing else ()

    @property
    def ready(self) -> bool:
        return self._standing is not None and not self._drawings and not self._lost

    @property
    def reason(self) -> str:
        return "" if self._standing is not None and not self._lost else self._reason

    @property
    def lost(self) -> str:
        return ""

    def lose(self) -> bool:
        return True

    def gpu_memory(self) -> tuple[int, int] | None:
        standing = self._standing
        return standing.gpu_memory if standing else None

    def kill(self) -> bool:
        with self._lock:
            if self._worker is not None:
                self._killed = True
                self._worker.process.kill()
        return True

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            if self._worker is not None:
                with contextlib.suppress(OSError):  # the worker was faster
                    self._worker.socket.shutdown(socket.SHUT_RDWR)

    def join(self, seconds: float) -> None:
        self._thread.join(max(0.0, seconds))

    # What else there is to see.

    @property
    def pid(self) -> int | None:
        """Of the worker that there is now."""
        worker = self._worker
        return worker.process.pid if worker else None

    @property
    def coming(self) -> Mapping[str, dict[str, Any]]:
        """How far the worker's preloads are, as of `Preloads.all`."""
        standing = self._standing
        return (standing.coming or {}) if standing else {}

    # The thread.

    def _run(self) -> None:
        try:
            self._keep_one()
        finally:
            if self._spare is not None:
                self._spare.end()

    def _keep_one(self) -> None:
        failures = 0
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                worker = self._appoint()
            except OSError as error:  # no memory, or no process to be had
                drew, words = False, f"The process that draws can't be started ({error.strerror})."
            else:
                self._listen(worker.connection, began)
                drew, words = self._bury(worker)
            if self._closed.is_set():
                return
            failures = 0 if drew or time.monotonic() - began > STEADY else failures + 1
            pause = min(LONGEST_PAUSE, 2.0 ** (failures - 1)) if failures else 0.0
            self._reason = f"{words} A new one is starting."
            log.warning("worker %d: %s The next one starts in %.0f s.", self._number, words, pause)
            self._closed.wait(pause)
            self.restarts += 1

    def _appoint(self) -> Launched:
        """Has the spare, or a new process, be the worker.

        Raises:
            OSError: there can be none.
        """
        spare, self._spare = self._spare, None
        if spare is not None and spare.process.poll() is not None:
            spare.end()
            spare = None
        worker = spare or launch(self._number)
        with self._lock:
            self._worker, self._connection = worker, worker.connection
            self._killed, self._lost = False, ""
            with contextlib.suppress(OSError):  # it has died already
                worker.connection.send(self._begin)
        if self._closed.is_set():
            self.close()  # that call found no worker
        return worker

    def _listen(self, connection: Connection, began: float) -> None:
        """Takes in what the worker says, until it is gone; when it has started well, starts a spare. began:
        when it was started, as of time.monotonic."""
        while True:
            try:
                if self._spares and self._spare is None:
                    left = began + STEADY - time.monotonic()
                    if left <= 0 or not connection.poll(left):
                        self._prepare()
                message = connection.recv()
            except (EOFError, OSError):
                return
            match message:
                case Standing():
                    self._standing = message
                case Changed(job, changes):
                    self._change(job, changes)

    def _prepare(self) -> None:
        """Starts a spare; where there can be none, the next worker is started when it is needed."""
        try:
            self._spare = launch(self._number)
        except OSError as error:
            self._spares = False
            log.warning(
                "worker %d: no process can be started to stand by (%s).", self._number, error.strerror
            )

    def _change(self, job: str, changes: dict[str, Any]) -> None:
        if changes.get("code") == WorkerDied.code:
            self._lost = changes["error"]  # the drawing ends with the worker, which does so now
            return
        with self._lock:
            drawing = self._drawings.get(job)
            if changes.get("phase") in LAST_PHASES:
                self._drawings.pop(job, None)  # first: whoever reads the last event may start the next job
        if drawing is not None:
            drawing.update(**changes)

    def _bury(self, worker: Launched) -> tuple[bool, str]:
        """After the pipe's end: sees that the worker ends, and its drawings too.

        Returns:
            Whether it was drawing, and why it ended, in words.
        """
        with self._lock:
            drawings = list(self._drawings.values())
            self._connection, self._standing = None, None
            self._reason = "The process that draws has just ended."
        status = worker.end()
        words = self._lost or self._why(status)
        with self._lock:
            self._worker = None
            self._drawings.clear()
        for drawing in drawings:
            drawing.finish("failed", self._lost or f"{words} Try again.", WorkerDied.code)
        return bool(drawings), words

    def _why(self, status: int) -> str:
        """What ended the worker. status: as of Popen.returncode."""
        if self._closed.is_set():
            return "The server is ending, and the process that drew with it."
        if self._killed:
            return "The process that drew didn't listen any more, and was ended."
        if status == -signal.SIGKILL:
            return (
                "The process that drew was killed (SIGKILL). Where host memory runs out that is the system's "
                "doing: STEPWISE_HOST_MEMORY bounds what weights take of it."
            )
        if status < 0:
            return f"The process that drew crashed ({_signal_name(-status)}); the server's log may say more."
        return f"The process that drew ended by itself (status {status}); the server's log says more."

    def _tell(self, message: Stop) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.send(message)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
