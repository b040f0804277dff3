"""Starting Python programs of ours as processes: servers, the command line.

Importing torch, diffusers and gradio costs a process seven seconds of CPU. Where that isn't what a test is
about, its process is forked from one that has imported them (inside/template.py), and is in all else a child
like any other: its own arguments, environment, folder, streams and signals, its own imports of our code.
A plain process is started where a fork would be another thing: where a variable is set that libraries read
while they are imported, where there is a GPU (CUDA survives no fork), where it isn't Linux.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import fcntl
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import INSIDE, ROOT

POSSIBLE = sys.platform == "linux" and not Path("/dev/nvidiactl").exists()
PROGRAMS = (("app.py",), ("-m", "cli"))
"""What is forked: the words after `python`."""
FIXED = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TORCHDYNAMO_DISABLE": "1",
}
"""The template's environment besides the tests': what our programs set before imports, and the tests."""
LATE = re.compile(
    # Ours, and what the libraries read when they are called. (Gradio reads OAUTH_* and the port while it is
    # imported too, for a login button and for a default, which the app doesn't have; and the folder for its
    # files, of which the template keeps each fork's copy current.)
    "STEPWISE_.*|TESTS_(?!AVX512_BF16).*|GRADIO_(SERVER_PORT|ROOT_PATH|MCP_SERVER|TEMP_DIR)|OAUTH_.*"
    "|OPENID_PROVIDER_URL|HF_TOKEN"
    # What changes from test to test, and is read by nobody or in each process anew.
    "|PYTHONPATH|PYTEST_.*|PWD|OLDPWD|SHLVL|COLUMNS|LINES|NO_COLOR|_"
    # Which is "1" by app.py, and "True" once Gradio has made a page in this process.
    "|HF_HUB_DISABLE_TELEMETRY"
)
"""Variables that may differ between the template and a fork."""
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


Start = Callable[..., subprocess.Popen[Any]]
"""`start`, or Popen itself."""


def start(command: Sequence[str], *, env: Mapping[str, str], **options: Any) -> subprocess.Popen[Any]:
    """As Popen, with whose parameters: forked from the template where that starts the same."""
    if would_fork(command, env):
        return Forked(command, env=dict(env), **options)
    return subprocess.Popen(command, env=dict(env), **options)


def would_fork(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a fork would be what this command starts in this environment."""
    if not POSSIBLE or command[0] != sys.executable:
        return False
    if not any(tuple(command[1 : 1 + len(one)]) == one for one in PROGRAMS):
        return False
    early = {name: value for name, value in environment.items() if not LATE.fullmatch(name)}
    template = {name: value for name, value in _Template.environment().items() if not LATE.fullmatch(name)}
    without = FIXED.keys() - early.keys() - {"HF_HUB_OFFLINE"}  # the program sets them
    same = {name: value for name, value in template.items() if name not in without}
    return early == same and INSIDE in environment.get("PYTHONPATH", "").split(os.pathsep)


def take_terminal() -> None:
    """As Popen's preexec_fn: makes the child's standard input the terminal that controls it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Forked(subprocess.Popen[Any]):
    """A Popen whose child is forked from the template. Of preexec_fn it knows `take_terminal`."""

    def _execute_child(self, *given: Any) -> None:
        """Popen's own, which makes the process; its parameters are the same from 3.11 to 3.13."""
        of = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        assert of["preexec_fn"] in (None, take_terminal)
        streams = [of["p2cread"], of["c2pwrite"], of["errwrite"]]
        passed = sorted(of["pass_fds"])
        try:
            self.pid = _Template.ours().fork(
                {
                    "program": [os.fsdecode(word) for word in of["args"][1:]],
                    "folder": str(of["cwd"] or Path.cwd()),
                    "environment": of["env"],
                    "files": [0, 1, 2, *passed],
                    "session": of["start_new_session"],
                    "terminal": of["preexec_fn"] is take_terminal,
                },
                [*(number if stream == -1 else stream for number, stream in enumerate(streams)), *passed],
            )
            self._child_created = True
        finally:
            pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            self._close_pipe_fds(*(of[name] for name in pipes))  # type: ignore[attr-defined]


class _Template:
    """The template of this process, which it ends with."""

    _one: _Template | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"import template; template.serve({its.fileno()})"],
                pass_fds=[its.fileno()],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self._end)

    @classmethod
    def ours(cls) -> _Template:
        if cls._one is None:
            cls._one = cls()
        return cls._one

    @staticmethod
    def environment() -> dict[str, str]:
        """Its environment: this process', without what may differ."""
        ours = {name: value for name, value in os.environ.items() if not LATE.fullmatch(name)}
        return ours | FIXED | {"PYTHONPATH": INSIDE}

    def fork(self, asked: dict[str, Any], files: Sequence[int]) -> int:
        """The process id of a new child of this process, which does what is asked with these open files."""
        message = json.dumps(asked).encode("utf-8", "surrogateescape")
        with self._lock:
            # Only meanwhile: who loses a parent otherwise is nobody's child here.
            _subreaper(True)
            try:
                self._requests.sendall(len(message).to_bytes(8, "big"))
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
                sent = self._requests.sendmsg([message], ancillary)
                self._requests.sendall(message[sent:])
                answer = self._requests.recv(8, socket.MSG_WAITALL)
            finally:
                _subreaper(False)
        assert len(answer) == 8, "the template has ended"
        return int.from_bytes(answer, "big")

    def _end(self) -> None:
        self._requests.close()
        self._process.wait()


def _subreaper(on: bool) -> None:
    """Makes this process the parent of whoever below it loses theirs, or not."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(on), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
