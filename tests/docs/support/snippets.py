"""The documentation's code blocks as programs: found in the Markdown files, and run as a reader would.

```python runs as a file, ```js as an ES module on Node, ```sh by bash. Whatever is not to be run is
```console, ```text, ```json or ```yaml.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT
from tests.support.services.node import PROGRAM

ADDRESS = "http://127.0.0.1:7860"
"""What the documentation calls the server; a run puts the real one in its place."""
TIMEOUT = 120
"""Seconds; generous, for two noisy cores."""
_BLOCK = re.compile(r"^```(python|js|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILES = {"python": "snippet.py", "js": "snippet.mjs", "sh": "snippet.sh"}


@dataclass(frozen=True)
class Snippet:
    """One code block. file: relative to the repository; line: of its first line, from 1."""

    file: str
    line: int
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line} {self.language}"


def snippets(*files: str) -> Iterator[Snippet]:
    """Every block of these files that is to be run, in their order. Files are relative to the repository."""
    for file in files:
        text = (ROOT / file).read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            yield Snippet(file, text.count("\n", 0, block.start()) + 2, block[1], block[2])


@dataclass(frozen=True)
class Programs:
    """What code blocks are run by: a Python, and the folder node_modules that JavaScript imports from."""

    python: Path
    modules: Path


def run(
    snippet: Snippet, server: str, folder: Path, programs: Programs, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Runs a snippet in an empty folder that has the command line in it, against a live server. Of Stepwise
    it finds nothing else: a reader elsewhere has no checkout. settings: of what draws on this machine."""
    (folder / "stepwise").symlink_to(ROOT / "stepwise")
    (folder / "node_modules").symlink_to(programs.modules, target_is_directory=True)
    program = folder / _FILES[snippet.language]
    program.write_text(snippet.code.replace(ADDRESS, server), encoding="utf-8")
    command = {
        "python": [str(programs.python)],
        "js": [str(PROGRAM)],
        "sh": ["bash", "-euo", "pipefail"],
    }[snippet.language]
    return subprocess.run(
        [*command, program.name],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
