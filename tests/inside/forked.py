"""The asking side of template.py: a Popen whose child is forked. It is used by the process that runs the
tests (tests/support/programs.py), and by servers that start workers (sitecustomize.py).
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import inspect
import json
import os
import socket
import subprocess
import termios
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2)."""


class Requests:
    """What a template is asked through: the other end of the template's socket."""

    def __init__(self, other_end: socket.socket) -> None:
        self._lock = threading.Lock()
        self._socket = other_end

    def fork(self, asked: dict[str, Any], files: Sequence[int]) -> int:
        """The process id of a new child of this process, which does what is asked with these open files."""
        message = json.dumps(asked).encode("utf-8", "surrogateescape")
        with self._lock:
            # Only meanwhile: who loses a parent otherwise is nobody's child here.
            _subreaper(True)
            try:
                self._socket.sendall(len(message).to_bytes(8, "big"))
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))]
                sent = self._socket.sendmsg([message], ancillary)
                self._socket.sendall(message[sent:])
                answer = self._socket.recv(8, socket.MSG_WAITALL)
            finally:
                _subreaper(False)
        assert len(answer) == 8, "the template has ended"
        return int.from_bytes(answer, "big")

    def close(self) -> None:
        """Ends the template."""
        self._socket.close()


def take_terminal() -> None:
    """As Popen's preexec_fn: makes the child's standard input the terminal that controls it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Forked(subprocess.Popen[Any]):
    """A Popen whose child is forked from a template. Of preexec_fn it knows `take_terminal`."""

    requests: ClassVar[Callable[[], Requests]]
    """Gives the template's; a subclass has it."""

    def _execute_child(self, *given: Any) -> None:
        """Popen's own, which makes the process; its parameters are the same from 3.11 to 3.13."""
        of = inspect.signature(subprocess.Popen._execute_child).bind(self, *given).arguments  # type: ignore[attr-defined]
        assert of["preexec_fn"] in (None, take_terminal)
        streams = [of["p2cread"], of["c2pwrite"], of["errwrite"]]
        passed = sorted(of["pass_fds"])
        try:
            self.pid = (
                type(self)
                .requests()
                .fork(
                    {
                        "program": [os.fsdecode(word) for word in of["args"][1:]],
                        "folder": str(of["cwd"] or Path.cwd()),
                        "environment": dict(os.environ if of["env"] is None else of["env"]),
                        "files": [0, 1, 2, *passed],
                        "session": of["start_new_session"],
                        "terminal": of["preexec_fn"] is take_terminal,
                    },
                    [*(number if stream == -1 else stream for number, stream in enumerate(streams)), *passed],
                )
            )
            self._child_created = True
        finally:
            pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            self._close_pipe_fds(*(of[name] for name in pipes))  # type: ignore[attr-defined]


def from_template(template: Requests) -> type[Forked]:
    """Return a Popen whose children this template forks."""

    class OfTemplate(Forked):
        requests = staticmethod(lambda: template)

    return OfTemplate


def _subreaper(on: bool) -> None:
    """Makes this process the parent of whoever below it loses theirs, or not."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(on), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
