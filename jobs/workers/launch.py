"""How a worker process (worker.py) is started and ended, as far as the operating system goes: its pipe, its
GPU, its environment.

multiprocessing's fork server isn't used. It would have to import the libraries before it forks, to save
anything, and then has threads: NumPy's OpenBLAS starts one for each further core when it is imported. It also
hands on its own environment, from which a worker must be without the server's secrets and with its GPU's
number before anything is imported. What it would save, a worker's successor that stands by saves too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

_ROOT = Path(__file__).parent.parent.parent
SERVERS_OWN = frozenset({"STEPWISE_API_KEYS", "STEPWISE_LOGIN", "OAUTH_CLIENT_SECRET"})
"""Secrets of who may come in, which nobody who draws need know."""
GRACE = 2.0
"""Seconds that a worker whose pipe is closed has to end by itself."""


@dataclass
class Launched:
    """A worker process and this end of its pipe. socket: that end, for shutting it down while it is read."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    connection: Connection

    def end(self) -> int:
        """Closes the pipe, which ends it, and waits until it has; its status, as of Popen.returncode."""
        self.connection.close()
        self.socket.close()
        try:
            return self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def launch(number: int) -> Launched:
    """Starts a worker process. number: of its GPU, from 0, of those that this process sees; without GPUs it
    means nothing. On Linux it ends with the thread that calls this.

    Raises:
        OSError: no memory, or no process to be had.
    """
    ours, its = socket.socketpair()
    with contextlib.ExitStack() as failed, its:
        failed.callback(ours.close)
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.workers.worker", str(its.fileno())],
            pass_fds=[its.fileno()],
            env=_environment(number),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the parent
        )
        failed.callback(process.wait)
        failed.callback(process.kill)
        connection = Connection(os.dup(ours.fileno()))
        failed.pop_all()
    return Launched(process, ours, connection)


def _environment(number: int) -> dict[str, str]:
    """A worker's environment: this one, without the server's secrets, with one of its GPUs and the way to
    this code."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    # Safe path (Python 3.11 on): what lies in the current folder doesn't come before the libraries.
    inherited = {name: value for name, value in os.environ.items() if name.upper() not in SERVERS_OWN}
    environment = {**inherited, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    gpus = torch.cuda.device_count()
    if number < gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = seen.split(",")[number].strip() if seen else str(number)
    return environment
