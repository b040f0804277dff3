"""A thread that lasts, for work that used to start a thread of its own each time.

CUDA, its libraries and the C library's allocator keep host memory for every thread that has used a GPU, and
give it back when the process ends: on an H200 the process grew by 280 MB in 15 drawings that had two such
threads each, and by nothing with two that last. A new one also takes its time to get ready: a drawing came
to its first step 0.15 to 0.2 s later (bench/README.md).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pipeline.devices.threads import start_thread


class SerialThread:
    """Does what it is given, one after the other, always in the same thread. That begins with the first
    call, so one that wasn't used before a fork can be used after it; and it doesn't hold up the end of the
    process, as concurrent.futures' threads do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._given: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]]
        self._given = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._unfinished = 0

    @property
    def busy(self) -> bool:
        """Whether something that it was given isn't done yet."""
        return self._unfinished > 0

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """Has it done when what was given before is; returns at once.

        Raises:
            Busy: its thread can't be started; the next call tries again.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._thread is None:
                self._thread = start_thread(self._name, self._run)
            self._unfinished += 1
        self._given.put((future, work, args))
        return future

    def wait_idle(self, seconds: float) -> None:
        """Waits until all that was given before is done: so many seconds at most."""
        if self._thread is not None:
            with contextlib.suppress(TimeoutError):
                self.submit(lambda: None).result(max(0.0, seconds))

    def _run(self) -> None:
        while True:
            self._do(*self._given.get())

    def _do(self, future: Future[Any], work: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """A function of its own, so that nothing of it is referred to while the thread waits: an error's
        traceback holds tensors."""
        try:
            result = work(*args)
        except BaseException as error:
            self._count_finished()
            future.set_exception(error)
            del future, work, args  # this frame is in the traceback: else they'd refer to each other
        else:
            self._count_finished()
            future.set_result(result)

    def _count_finished(self) -> None:
        """Before whoever waits for it is told: it may give more at once."""
        with self._lock:
            self._unfinished -= 1
