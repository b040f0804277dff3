"""How the server ends: when its drawings are there, or within seconds; whoever listens; without noise."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import gradio as gr

GRACE = 1
"""Seconds for which answers that are under way may go on. Gradio (6.31) gives the whole end 5 s, and waits
that long for every open stream (an MCP client's, a tab's)."""

COLLECT = 2
"""Seconds after the last drawing's end for which its picture can be fetched: the page and Gradio's clients
are told its address."""


def end_when_told(demo: gr.Blocks, drain: Callable[[], bool]) -> None:
    """Makes Ctrl-C end the server now, and SIGTERM once what it draws is there; a second one, now. Either
    cuts what is still open.

    Args:
        drain: takes nothing more, and returns when nothing is drawn any more or the time for that is over;
            whether a drawing has ended meanwhile.
    """

    def end(*_: Any) -> NoReturn:
        if getattr(demo, "server", None) is not None:
            demo.server.config.timeout_graceful_shutdown = GRACE
        raise KeyboardInterrupt

    def drain_and_end() -> None:
        if drain():
            time.sleep(COLLECT)
        os.kill(os.getpid(), signal.SIGINT)  # its handler runs in the main thread, which Gradio holds

    def finish(*_: Any) -> None:
        signal.signal(signal.SIGTERM, end)
        threading.Thread(target=drain_and_end, name="drain", daemon=True).start()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, finish)
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not: that an answer was cut. Uvicorn (0.54) logs a traceback for each."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
