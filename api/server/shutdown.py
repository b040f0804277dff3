"""How the server ends: when its drawings are finished, or within seconds; whoever still listens; without
tracebacks.

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

POLL_INTERVAL = 0.1
"""Seconds between two looks at whether a signal came."""
FETCH_TIME = 2.0
"""Seconds after the last drawing's end for which its picture can be fetched: the page and Gradio's clients
are told its address."""
THREAD_TIME = 5.0
"""Seconds that what draws, prepares or downloads in this process has to come out of its step. What is longer
in one call of a library can't be stopped, and ends with the process; its job was put back before."""
CLEANUP_TIME = 30.0
"""Seconds after which an end that hasn't come to its own end is cut: a disk or a driver doesn't answer."""


class Shutdown:
    """The one owner of this process' end.

    told: a signal asked for the end. now: without waiting for what is being drawn.
    """

    def __init__(self) -> None:
        self.requested = self.immediate = False
        self._needs_cleanup = False

    def listen(self) -> None:
        """Handle SIGINT and SIGTERM from now on. Must be called in the main thread, before anything else.
        Until `require_cleanup` either signal ends the process at once: the imports take seconds, and so may
        waiting for a folder. A call into a library, as a large import, delays that until it returns."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: Any) -> None:
        """Ctrl-C ends the server now; SIGTERM when what is being drawn is finished, and a second one now."""
        if not self._needs_cleanup:
            os._exit(0)
        self.immediate = self.requested or number == signal.SIGINT
        self.requested = True

    def wait(self) -> None:
        """Return when a signal has asked the process to end."""
        while not self.requested:
            time.sleep(POLL_INTERVAL)

    @contextlib.contextmanager
    def closing(self, queue: Queue, grace: float) -> Iterator[Served]:
        """Close everything in order after the block, however it ends, and end the process: with 0 after a
        signal, with 1 after an exception, which is printed.

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
        cut = threading.Timer(grace + CLEANUP_TIME, _exit_late)
        cut.daemon = True
        cut.start()
        drain = [lambda: self._drain(queue, grace)] if status == 0 else []
        for step in (*drain, served.close, lambda: queue.close(THREAD_TIME)):
            try:
                step()
            except Exception:  # what comes after it is done all the same
                traceback.print_exc()
                status = 1
        exit_process(status)

    def require_cleanup(self) -> None:
        """Only note signals from now on: something is open that must be closed in order."""
        self._needs_cleanup = True

    def _drain(self, queue: Queue, grace: float) -> None:
        """Take no more jobs, and wait for what is being drawn, unless the end is asked for now."""
        running = queue.running()
        if running and not self.immediate and grace:
            drawings = "1 drawing is" if running == 1 else f"{running} drawings are"
            _print_line(
                f"Told to end: {drawings} finished first, within {grace:g} s; a second signal ends it now."
            )
        else:
            _print_line("Told to end.")
        if queue.drain(grace, lambda: self.immediate):
            until = time.monotonic() + FETCH_TIME
            while not self.immediate and time.monotonic() < until:
                time.sleep(POLL_INTERVAL)


class Served:
    """What is being served: `demo` is the page, once there is one."""

    def __init__(self) -> None:
        self.demo: gr.Blocks | None = None

    def close(self) -> None:
        """End the web server, if it has begun; what is still being answered is cut (`listening.ANSWERS`)."""
        server = getattr(self.demo, "server", None)
        if server is not None:
            server.close()


def exit_process(status: int) -> NoReturn:
    """End the process after running what was registered with `atexit`, but without Python's own finalization:
    that unwinds threads which are within a library's call, and C++ then aborts the process (status 134)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)


def silence_cut_answers() -> None:
    """Keep out of the log that the end of the server cut an answer. Uvicorn (0.54) logs a traceback for
    each."""
    import asyncio  # here, because whoever only listens needn't wait for it

    def is_news(record: logging.LogRecord) -> bool:
        return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)

    logging.getLogger("uvicorn.error").addFilter(is_news)


def _status(leaving: SystemExit) -> int:
    """Return the exit status that Python makes of a SystemExit: words are printed, and mean 1."""
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    print(leaving.code, file=sys.stderr, flush=True)
    return 1


def _exit_late() -> None:
    """End a process that didn't come to its end in time."""
    _print_line(f"The server didn't come to its end within {CLEANUP_TIME:g} s, and is cut.")
    os._exit(1)


def _print_line(words: str) -> None:
    """Print a line at once, also where nobody reads it any more."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        print(words, flush=True)
