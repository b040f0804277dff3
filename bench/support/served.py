"""The app as a process that a benchmark may kill and start again, on the same port and with the same data."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.support.table import ROOT, free_port

Start = Callable[..., subprocess.Popen[bytes]]
"""As Popen."""
POLL = 0.3
"""Seconds between two looks at whether the server answers."""


class Served:
    """`python app.py`, whichever process it is."""

    def __init__(
        self, folder: Path, checkout: Path = ROOT, start: Start | None = None, **environment: str
    ) -> None:
        """
        Args:
            folder: for its log, its jobs and its pictures' files.
            checkout: whose app.py it is.
            start: what starts it; None: Popen.
            environment: its settings.
        """
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.process: subprocess.Popen | None = None
        self._checkout = checkout
        self._start = start
        self._environment = {
            **os.environ,
            "GRADIO_SERVER_PORT": str(self.port),
            "GRADIO_TEMP_DIR": str(folder / "gradio"),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "STEPWISE_DATA": str(self.data),
            **environment,
        }

    def start(self) -> None:
        """Returns at once."""
        with self.log.open("ab") as log:
            self.process = (self._start or subprocess.Popen)(
                [sys.executable, "app.py"],
                cwd=self._checkout,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def answering(self, http: httpx.AsyncClient) -> None:
        """Waits until it could draw, as far as it says so."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await http.get(f"{self.url}/readyz", timeout=5)
                if answer.status_code == 404:  # a server without it
                    answer = await http.get(self.url, timeout=5)
                if answer.status_code == 200:
                    return
            if self.process is not None and self.process.poll() is not None:
                raise SystemExit(f"The server ended by itself:\n{self.log.read_text()[-4000:]}")
            await asyncio.sleep(POLL)

    def kill(self) -> None:
        """SIGKILL: it can do nothing about it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def worker(self) -> psutil.Process | None:
        """Its worker process; None where there is none now."""
        return next(iter(self.workers()), None)

    def workers(self) -> list[psutil.Process]:
        """Its worker process and the one that stands by, as far as there is one: the elder one works."""
        assert self.process is not None
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "jobs.workers.worker" in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                        found.append(child)
        return sorted(found, key=lambda child: child.create_time())

    def rows(self, query: str, *values: Any) -> list[tuple]:
        """What its store has written down; nothing as long as there is none."""
        path = self.data / "jobs.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as store:
            return store.execute(query, values).fetchall()
