"""What the benchmarks share: a command line, a table that says its own setting, and a server as a process of
its own. Knows nothing of what is measured."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent
POLL = 0.02
"""Seconds between two looks at whether a server answers: how exact its start is timed."""


def command_line(name: str, description: str | None) -> argparse.ArgumentParser:
    """Of `python -m bench.NAME`. description: that module's docstring, as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m bench.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield Path(folder)


def percentile(values: Iterable[float], part: float) -> float:
    """The value that this part of them (0 to 1) is below; of few, the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def setting(*more: str) -> str:
    """One paragraph on where and with what this was measured; ends with the caller's own sentences."""
    load = os.getloadavg()[0]
    libraries = ("torch", "diffusers", "transformers", "gradio")
    versions = ", ".join(f"{name} {version(name)}" for name in libraries if find_spec(name))
    machine = (
        f"{_processor()}, {os.cpu_count()} cores, load {load:.1f} at the start, "
        f"Python {platform.python_version()}, {versions}."
    )
    return " ".join((machine, *more))


def table(title: str, rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [f"\n### {title}\n", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])


@contextlib.contextmanager
def server(*command: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen, float]]:
    """Runs a Gradio app with this Python: gives its address, its process, and the seconds from the start of
    the process until its page answered.

    Args:
        command: what follows `python`.
    """
    port = free_port()
    with scratch() as folder, Path(folder, "log").open("w+") as log:
        variables = {
            **os.environ,
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(Path(folder, "gradio")),
            "STEPWISE_DATA": str(Path(folder, "data")),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            **environment,
        }
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, Path(log.name))
            yield url, process, time.monotonic() - began
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    with httpx.Client(timeout=30) as client:
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == 200:
                    return
            time.sleep(POLL)
    raise SystemExit(f"The server ended before its page answered:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _processor() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
