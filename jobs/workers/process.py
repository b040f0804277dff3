"""The server's side of a worker process: starts it, starts a new one when it dies, and is an executor to
whoever has jobs to draw.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from jobs.workers.launch import Launched, launch
from jobs.workers.messages import (
    CancelJob,
    CancelLoad,
    Configure,
    EventDelta,
    Loaded,
    LoadModel,
    LoadProgress,
    RunJob,
    WorkerStatus,
)
from pipeline.devices.threads import start_thread
from pipeline.engine import EngineSpec
from pipeline.errors import StepwiseError, WorkerDied
from pipeline.events import Event
from pipeline.executors.executor import Capabilities
from pipeline.request import Job
from pipeline.run import Cancel, Emit, Progress

log = logging.getLogger("stepwise")

LONGEST_PAUSE = 30.0
"""Seconds between two starts of workers that die without having drawn: 1, 2, 4 … up to this."""
STEADY = 30.0
"""Seconds: a worker that has lived as long has started well."""


class WorkerProcess:
    """A worker and its successors: an Executor. Safe to use from any thread."""

    at_once = 1

    def __init__(
        self, spec: EngineSpec, number: int = 0, models: Sequence[str] = (), spare: bool = False
    ) -> None:
        """Returns at once; `capabilities` says when the first worker can draw.

        Args:
            spec: of the worker's engine.
            number: which of the GPUs that this process sees is the worker's, from 0; without GPUs it means
                nothing.
            models: ids of those that it draws.
            spare: whether the next worker waits beside one that has started well, with all imported (some
                500 MB of host memory), so that a dead one's successor needs no more than to load.
        """
        self._configure = Configure(spec)
        self._number = number
        self._models = tuple(models)
        self._lock = threading.Lock()
        """Held while one of these changes, and while sending; never while receiving or emitting."""
        self._worker: Launched | None = None
        self._connection: Connection | None = None
        """The worker's, as long as it may be sent something."""
        self._spares = spare
        self._spare: Launched | None = None
        self._runs: dict[str, _RemoteRun] = {}
        self._loads: dict[str, _RemoteLoad] = {}
        self._status: WorkerStatus | None = None
        self._restarts = 0
        self._reason = "The process that draws is starting."
        self._device_lost = ""
        self._killed = False
        self._closed = threading.Event()
        self._changed: Callable[[], None] = lambda: None
        # One thread for all workers, as long as they live: Linux sends a child its PR_SET_PDEATHSIG when the
        # thread that started it ends.
        self._thread = start_thread(f"worker {number}", self._supervise)

    # The executor.

    def capabilities(self) -> Capabilities:
        status = self._status
        ready = status is not None and not self._device_lost
        return Capabilities(
            self._models,
            status.resident if status else (),
            "" if ready else self._reason,
            restarts=self._restarts,
        )

    def on_change(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def gpu_memory(self) -> tuple[int, int] | None:
        status = self._status
        return status.gpu_memory if status else None

    def run(self, job: Job, emit: Emit, cancel: Cancel) -> Event:
        """As of Executor.

        Raises:
            WorkerDied: there is no worker now, and nothing was begun.
        """
        run = _RemoteRun(job, emit)
        self._ask(self._runs, job.id, run, RunJob(job))
        with cancel.calling(lambda: self._tell(CancelJob(job.id))):
            return run.over.result()

    def load(self, model: str, progress: Progress) -> None:
        """As of Executor; raises WorkerDied, too."""
        load = _RemoteLoad(progress)
        self._ask(self._loads, model, load, LoadModel(model))
        with progress.cancel.calling(lambda: self._tell(CancelLoad(model))):
            loaded = load.over.result()
        progress.raise_if_cancelled()
        if loaded.error is not None:
            raise WorkerDied(loaded.error) if loaded.code == WorkerDied.code else StepwiseError(loaded.error)

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

    @property
    def pid(self) -> int | None:
        """Of the worker that there is now."""
        worker = self._worker
        return worker.process.pid if worker else None

    def _ask(self, kind: dict[str, Any], name: str, asked: Any, message: object) -> None:
        with self._lock:
            if self._connection is None or self._device_lost:
                raise WorkerDied(f"{self._reason} Try again in a minute.")
            kind[name] = asked
            with contextlib.suppress(OSError):  # it has just died: the thread sees it too, and ends this
                self._connection.send(message)

    def _tell(self, message: object) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.send(message)

    # The thread.

    def _supervise(self) -> None:
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
                worker = self._start_worker()
            except OSError as error:  # no memory, or no process to be had
                drew, words = False, f"The process that draws can't be started ({error.strerror})."
            else:
                self._receive(worker.connection, began)
                drew, words = self._reap(worker)
            if self._closed.is_set():
                return
            failures = 0 if drew or time.monotonic() - began > STEADY else failures + 1
            pause = min(LONGEST_PAUSE, 2.0 ** (failures - 1)) if failures else 0.0
            self._reason = f"{words} A new one is starting."
            log.warning("worker %d: %s The next one starts in %.0f s.", self._number, words, pause)
            self._closed.wait(pause)
            self._restarts += 1

    def _start_worker(self) -> Launched:
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
            self._killed, self._device_lost = False, ""
            with contextlib.suppress(OSError):  # it has died already
                worker.connection.send(self._configure)
        if self._closed.is_set():
            self.close()  # that call found no worker
        return worker

    def _receive(self, connection: Connection, began: float) -> None:
        """Takes in what the worker says, until it is gone; when it has started well, starts a spare. began:
        when it was started, as of time.monotonic."""
        while True:
            try:
                if self._spares and self._spare is None:
                    left = began + STEADY - time.monotonic()
                    if left <= 0 or not connection.poll(left):
                        self._start_spare()
                message = connection.recv()
            except (EOFError, OSError):
                return
            match message:
                case WorkerStatus():
                    first, self._status = self._status is None, message
                    if first:
                        self._changed()
                case EventDelta(job, changes):
                    self._take_event(job, changes)
                case LoadProgress(model, phase, done, total):
                    if (load := self._loads.get(model)) is not None:
                        load.progress.update(phase=phase, done=done, total=total)
                case Loaded(model):
                    with self._lock:
                        load = self._loads.pop(model, None)
                    if load is not None:
                        load.over.set_result(message)

    def _start_spare(self) -> None:
        """Starts a spare; where there can be none, the next worker is started when it is needed."""
        try:
            self._spare = launch(self._number)
        except OSError as error:
            self._spares = False
            log.warning(
                "worker %d: no process can be started to stand by (%s).", self._number, error.strerror
            )

    def _take_event(self, job: str, changes: dict[str, Any]) -> None:
        if changes.get("code") == WorkerDied.code:
            self._device_lost = changes["error"]  # the run ends with the worker, which does so now
            return
        run = self._runs.get(job)
        if run is None:
            return
        run.take(changes)
        if run.event.last:
            with self._lock:
                self._runs.pop(job, None)
            run.over.set_result(run.event)  # last: whoever waits for it may begin the next job

    def _reap(self, worker: Launched) -> tuple[bool, str]:
        """After the pipe's end: sees that the worker ends, and what it did too.

        Returns:
            Whether it was drawing, and why it ended, in words.
        """
        with self._lock:
            self._connection, self._status = None, None
            self._reason = "The process that draws has just ended."
        status = worker.end()
        words = self._device_lost or self._why(status)
        with self._lock:
            self._worker = None
            runs, self._runs = self._runs, {}
            loads, self._loads = self._loads, {}
        for run in runs.values():
            error = self._device_lost or f"{words} Try again."
            run.take({"phase": "failed", "error": error, "code": WorkerDied.code, "eta": None})
            run.over.set_result(run.event)
        for model, load in loads.items():
            load.over.set_result(Loaded(model, words, WorkerDied.code))
        self._changed()
        return bool(runs), words

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


class _RemoteRun:
    """A job that the worker draws. event: its newest; over: gives its last one."""

    def __init__(self, job: Job, emit: Emit) -> None:
        self._emit = emit
        self.event = Event(job, warnings=job.warnings)
        self.over: Future[Event] = Future()

    def take(self, changes: dict[str, Any]) -> None:
        """Emits its next event. changes: what differs from the one before."""
        self.event = replace(self.event, **changes)
        self._emit(self.event)


class _RemoteLoad:
    """A model that the worker loads. over: gives what became of it."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.over: Future[Loaded] = Future()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
