"""Starting Python programs of ours as processes: servers, the command line.

Importing torch, diffusers and gradio costs a process seven seconds of CPU. Where that isn't what a test is
about, its process is forked from one that has imported them (inside/template.py), and is in all else a child
like any other: its own arguments, environment, folder, streams and signals, its own imports of our code.
A plain process is started where a fork would be another thing: where a variable is set that libraries read
while they are imported, where there is a GPU (CUDA survives no fork), where it isn't Linux.

So are the processes that run the tests, from a template of their own.
"""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from execnet import gateway_io

from tests import INSIDE, ROOT, python_path
from tests.inside import forked
from tests.inside.forked import take_terminal as take_terminal

POSSIBLE = sys.platform == "linux" and not Path("/dev/nvidiactl").exists()
PROGRAMS = (("app.py",), ("-m", "cli"), ("-m", "jobs.workers.worker"), ("-m", "bench.fullsize"))
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
    "|PYTHONPATH|PYTHONSAFEPATH|PYTEST_.*|PWD|OLDPWD|SHLVL|COLUMNS|LINES|NO_COLOR|_"
    # Which is "1" by app.py, and "True" once Gradio has made a page in this process.
    "|HF_HUB_DISABLE_TELEMETRY"
)
"""Variables that may differ between the template and a fork."""
NAMES = 2000
"""Bytes that /proc/PID/cmdline has room for in the template, where each fork writes its own."""
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


def start_code(code: str, folder: Path, *words: str, **options: Any) -> subprocess.Popen[Any]:
    """Starts a program of this code, which finds our own code, with these words; its file lies in this
    folder. It is forked as the others are, and so what the template has imported counts as imported."""
    (folder / "program.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path(str(ROOT))}
    popen = Forked if would_fork([sys.executable, *PROGRAMS[0]], environment) else subprocess.Popen
    return popen([sys.executable, str(folder / "program.py"), *words], cwd=ROOT, env=environment, **options)


class Forked(forked.Forked):
    """A Popen whose child is forked from this process' template."""

    requests = staticmethod(lambda: _Template.ours())


def fork_test_processes() -> None:
    """Has xdist's processes forked from a template: a way of starting them that execnet (2.1) has no option
    for. The template imports what they import anyway, in their own environment."""
    if not POSSIBLE:
        return
    of_template = forked.from_template(_Template(dict(os.environ)))

    class ForkedIO(gateway_io.Popen2IOMaster):
        def __init__(self, command: list[str], execmodel: Any) -> None:
            code = command[command.index("-c") :]
            self.popen = of_template([sys.executable, *code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            gateway_io.Popen2IO.__init__(self, self.popen.stdin, self.popen.stdout, execmodel=execmodel)

    gateway_io.Popen2IOMaster = ForkedIO  # type: ignore[misc]


class _Template(forked.Requests):
    """A template of this process, which it ends with."""

    _one: _Template | None = None
    _making = threading.Lock()

    def __init__(self, environment: dict[str, str]) -> None:
        ours, its = socket.socketpair()
        super().__init__(ours)
        with its:
            code = f"import template; template.serve({its.fileno()})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code.ljust(NAMES)],
                pass_fds=[its.fileno()],
                cwd=ROOT,
                env=environment | {"PYTHONPATH": INSIDE},
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self._end)

    @classmethod
    def ours(cls) -> _Template:
        with cls._making:
            if cls._one is None:
                cls._one = cls(cls.environment())
            return cls._one

    @staticmethod
    def environment() -> dict[str, str]:
        """Its environment: this process', without what may differ."""
        ours = {name: value for name, value in os.environ.items() if not LATE.fullmatch(name)}
        return ours | FIXED

    def _end(self) -> None:
        self.close()
        self._process.wait()
