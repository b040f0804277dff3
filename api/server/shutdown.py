"""How the server ends: when its drawings are there, or within seconds; whoever still listens; without noise.

One object owns the end. All that a signal does is to note that it came; the main thread looks at that note,
closes what is open, and ends the process. Nothing is raised: an exception out of a signal's handler comes up
wherever the main thread happens to be, also where it is swallowed or leaves a lock behind. Imports only the
standard library, so that it listens before all else is imported.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import gradio as gr

    from jobs.queue import Queue

LOOK = 0.1
"""Seconds between two looks at whether a signal came."""
COLLECT = 2.0
"""Seconds after the last drawing's end for which its picture can be fetched: the page and Gradio's clients
are told its address."""
THREADS = 5.0
"""Seconds that what draws, prepares or downloads in this process has to come out of its step. What is longer
in one call of a library can't be stopped, and ends with the process; its job was put back before."""
LAST = 30.0
"""Seconds after which an end that hasn't come to its own end is cut: a disk or a driver doesn't answer."""


class Ending:
    """The one owner of this process' end.

    told: a signal asked for the end. now: without waiting for what is being drawn.
    """

    def __init__(self) -> None:
        self.told = self.now = False
        self._in_order = False

    def listen(self) -> None:
        """Hears SIGINT and SIGTERM from now on; called in the main thread, first of all. As long as nothing
        is open that must be closed (`in_order`), either ends the process at once: the imports take seconds,
        and a folder that is waited for longer. A call of a library, as a large one's import, delays that
        until it returns."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _: Any) -> None:
        """Ctrl-C ends now; SIGTERM when what is drawn is there, a second one now."""
        if not self._in_order:
            os._exit(0)
        self.now = self.told or number == signal.SIGINT
        self.told = True

    def wait(self) -> None:
        """Returns when the process is told to end."""
        while not self.told:
            time.sleep(LOOK)

    @contextlib.contextmanager
    def closing(self, queue: Queue, grace: float) -> Iterator[Served]:
        """After the block, however it ends, everything is closed in order, and the process ends: with 0 after
        a signal, with 1 after an exception, which is told.

        Args:
            grace: seconds for which what is being drawn may finish where the end isn't asked for now.
        """
        served = Served()
        try:
            yield served
            status = 0
        except SystemExit as leaving:
            status = _status(leaving)
        except BaseException:
            traceback.print_exc()
            status = 1
        cut = threading.Timer(grace + LAST, _cut)
        cut.daemon = True
        cut.start()
        drain = [lambda: self._drain(queue, grace)] if status == 0 else []
        for step in (*drain, served.close, lambda: queue.close(THREADS)):
            try:
                step()
            except Exception:  # what comes after it is done all the same
                traceback.print_exc()
                status = 1
        leave(status)

    def in_order(self) -> None:
        """From now on something is open that must be closed: a signal is only noted."""
        self._in_order = True

    def _drain(self, queue: Queue, grace: float) -> None:
        """Takes nothing more, and waits for what is drawn, unless the end is asked for now."""
        running = queue.running()
        if running and not self.now and grace:
            drawings = "1 drawing is" if running == 1 else f"{running} drawings are"
            _say(f"Told to end: {drawings} finished first, within {grace:g} s; a second signal ends it now.")
        else:
            _say("Told to end.")
        if queue.drain(grace, lambda: self.now):
            until = time.monotonic() + COLLECT
            while not self.now and time.monotonic() < until:
                time.sleep(LOOK)


class Served:
    """What is being served: `demo` once there is a page."""

    def __init__(self) -> None:
        self.demo: gr.Blocks | None = None

    def close(self) -> None:
        """End the web server, if it has begun; what is still being answered is cut (`listening.ANSWERS`)."""
        server = getattr(self.demo, "server", None)
        if server is not None:
            server.close()


def leave(status: int) -> NoReturn:
    """Ends the process, with what was registered for its end, and without Python's own taking down: that ends
    threads which are within a library's call by unwinding them, and C++ then aborts all (134)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def expect_cuts() -> None:
    """Keeps out of the log that an answer was cut by the end. Uvicorn (0.54) logs a traceback for each."""
    import asyncio  # here, because whoever only listens needn't wait for it

    def is_news(record: logging.LogRecord) -> bool:
        return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)

    logging.getLogger("uvicorn.error").addFilter(is_news)


def _status(leaving: SystemExit) -> int:
    """What Python makes of it: words are told, and mean 1."""
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    print(leaving.code, file=sys.stderr, flush=True)
    return 1


def _cut() -> None:
    _say(f"The server didn't come to its end within {LAST:g} s, and is cut.")
    os._exit(1)


def _say(words: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        print(words, flush=True)
