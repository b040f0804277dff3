"""The command line as a shell would run it: a process of its own, its streams pipes or a real terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests import python_path
from tests.support import programs
from tests.support.tiny import ROOT

CLI = (sys.executable, "-m", "cli")
TIMEOUT = 120
"""Seconds; generous, for two noisy cores."""
SMALL = ("--model", "sketch", "--size", "128x128", "--steps", "4", "--seed", "7")
"""Options that sketch draws in a moment: tests.support.tiny.SMALL, as the command line says it."""
LONG = ("--model", "sketch", "--size", "384x384", "--steps", "60", "--images", "2")
"""Many seconds; a test that wants to find it still being drawn holds its steps besides."""


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": python_path(str(ROOT)), "HF_HUB_OFFLINE": "1", **changes}


def run(
    folder: Path,
    *words: str,
    text: bytes = b"",
    command: Sequence[str] = CLI,
    env: Mapping[str, str] | None = None,
    check: bool = False,
    start: programs.Start = programs.start,
) -> subprocess.CompletedProcess[bytes]:
    """The command in this folder, with this standard input, to its end, as subprocess.run gives it."""
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start([*command, *words], cwd=folder, env=env or environment(), **pipes) as process:
        try:
            printed, said = process.communicate(text, timeout=TIMEOUT)
        finally:
            process.kill()
    ended = subprocess.CompletedProcess(process.args, process.returncode, printed, said)
    if check:
        ended.check_returncode()
    return ended


def start(folder: Path, *words: str, command: Sequence[str] = CLI) -> subprocess.Popen[bytes]:
    """The command in this folder, its output in pipes."""
    return programs.start(
        [*command, *words], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def events(process: subprocess.Popen[bytes]) -> Any:
    """The events that `draw --json` prints, as they come."""
    assert process.stdout is not None
    return map(json.loads, process.stdout)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@contextlib.contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that is no Stepwise."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Terminal:
    """A command in a terminal of its own, 100 columns wide, in which Ctrl-C can be typed."""

    def __init__(self, folder: Path, command: Sequence[str], **changes: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
        self.process = programs.start(
            command,
            cwd=folder,
            env=environment(**changes),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=programs.take_terminal,
        )
        os.close(theirs)
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._ours)

    def read(self, until: str | None = None) -> str:
        """What was shown by the time that `until` is, or by the end."""
        while until is None or until not in self.shown:
            try:
                more = os.read(self._ours, 4096)
            except OSError:  # Linux's end of a terminal whose other side is closed
                more = b""
            if not more:
                assert until is None, f"never shown: {until!r}\n{self.shown}"
                break
            self.shown += more.decode()
        return self.shown

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Reads to the end, and gives the exit code."""
        self.read()
        return self.process.wait(TIMEOUT)
