"""Finds where this process waits for SQLite or another file in a thread that runs an event loop: everyone
else's answers wait for that, too. Counted is what code of Stepwise's does there, or a library that such code
calls; not what Gradio and the server beneath it do by themselves, nor what Python reads to import a module.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = str(Path(__file__).parent.parent.parent)
OURS = tuple(f"{ROOT}{os.sep}{name}" for name in ("api", "jobs", "pipeline", "ui", "app.py", "settings.py"))
SERVERS = tuple(f"{os.sep}{name}{os.sep}" for name in ("gradio", "starlette", "fastapi", "uvicorn", "mcp"))
NO_DISK = ("/proc/", "/dev/", "/sys/")
AUDITED = frozenset(("open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.utime"))
"""Events of Python's audit hooks (docs.python.org, "Audit events table")."""
UNAUDITED = ("stat", "lstat", "statvfs", "access", "readlink", "fsync")
"""Functions of `os` that raise no such event."""

Report = Callable[[str], None]
_reports: list[Report] = []
_reporting = threading.local()


def watch(report: Report) -> Callable[[], None]:
    """Report each such wait, as a stack in words, until the function that is returned is called. Databases
    are watched that are opened from now on."""
    if not _installed:
        _install()
    _reports.append(report)
    return lambda: _reports.remove(report)


def watch_into(file: Path) -> None:
    """Append each such wait of this process to a file, which is missing while there are none. Once a
    process; later calls do nothing."""
    if _reports:
        return

    def write(words: str) -> None:
        with file.open("a", encoding="utf-8") as found:
            found.write(words)

    watch(write)


_installed: list[bool] = []


def _install() -> None:
    """Once a process: an audit hook can't be taken away."""
    _installed.append(True)
    sys.addaudithook(lambda event, values: _look(event, values) if event in AUDITED else None)
    for name in UNAUDITED:
        setattr(os, name, _looked(name, getattr(os, name)))
    connect = sqlite3.connect
    sqlite3.connect = lambda *values, **named: connect(*values, **{"factory": _Watched} | named)


class _Watched(sqlite3.Connection):
    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        _look("SQLite", (statement,))
        return super().execute(statement, *values)


def _looked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def looked(*values: Any, **named: Any) -> Any:
        _look(name, values)
        return function(*values, **named)

    return looked


def _look(event: str, values: tuple[Any, ...]) -> None:
    if not _reports or asyncio._get_running_loop() is None:
        return
    if threading.current_thread().name.startswith("call for "):  # its loop serves one provider's call alone
        return
    what = values[0] if values else ""
    if getattr(_reporting, "now", False) or str(what).startswith(NO_DISK):
        return
    _reporting.now = True  # which reads files itself
    try:
        if _is_ours(frame := sys._getframe(2)):
            stack = "".join(traceback.format_stack(frame, limit=14))
            for report in list(_reports):
                report(f"{event} {str(what)[:100]!r} in the thread of an event loop:\n{stack}\n")
    finally:
        _reporting.now = False


def _is_ours(frame: FrameType | None) -> bool:
    """Whether code of ours is the first in this stack, from within, that isn't a library's, and comes before
    any of Gradio's and the server's."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith("<frozen importlib"):
            return False
        if file.startswith(OURS):
            return True
        if any(name in file for name in SERVERS):
            return False
        frame = frame.f_back
    return False
