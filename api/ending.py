"""How the server ends: within seconds of being told to, whoever still listens, and without noise.

What is then deleted is Gradio's doing (`delete_cache`), which it does once nobody is connected any more.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any, NoReturn

import gradio as gr

GRACE = 1
"""Seconds for which answers that are under way may go on. Gradio (6.31) gives the whole end 5 s, waits that
long for every open stream (an MCP client's, a tab's), and then leaves with the pictures still there."""


def end_when_told(demo: gr.Blocks) -> None:
    """Makes SIGTERM end the server as Ctrl-C does, and both cut what is still open."""

    def end(*_: Any) -> NoReturn:
        if getattr(demo, "server", None) is not None:
            demo.server.config.timeout_graceful_shutdown = GRACE
        raise KeyboardInterrupt

    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, end)
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not: that an answer was cut. Uvicorn (0.54) logs a traceback for each."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)
