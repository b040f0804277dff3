"""Which Python: what the requirements want is promised, and checked in words before anything is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny import ROOT

FLOOR = "3.11"
SUPPORTED = (FLOOR, "3.12", "3.13")
PIP = "26.3"
"""From 23.3 on a dry run fetches what an index says of a package, and not the package."""
UNREACHABLE = re.compile("NewConnectionError|NameResolutionError|ConnectTimeout|ConnectionError|ProxyError")
"""What pip says where there is no index to ask."""


def test_the_floor_is_the_same_wherever_it_is_said() -> None:
    said = {
        "README.md": f"needs Python {FLOOR} or newer",
        "stepwise": f"needs Python {FLOOR} or newer",
        "Makefile": f"needs Python {FLOOR} or newer",
        "pyproject.toml": f'target-version = "py{FLOOR.replace(".", "")}"',
    }
    for name, words in said.items():
        assert words in (ROOT / name).read_text(encoding="utf-8"), name
    for name in ("stepwise", "Makefile"):
        assert f"sys.version_info < ({FLOOR.replace('.', ', ')})" in (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `python -m pip` is that pip, whichever this Python has."""
    folder = tmp_path_factory.mktemp("pip")
    options = ["--quiet", "--disable-pip-version-check", "--retries=1", "--target", str(folder)]
    command = [sys.executable, "-m", "pip", "install", *options, f"pip=={PIP}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and UNREACHABLE.search(done.stdout + done.stderr):
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("version", SUPPORTED)
def test_all_requirements_can_be_installed_as_wheels(
    pip: dict[str, str], tmp_path: Path, version: str
) -> None:
    options = ["--dry-run", "--quiet", "--disable-pip-version-check", "--ignore-installed"]
    options += ["--only-binary=:all:", f"--python-version={version}", "--target", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "install", *options, "-r", "requirements-dev.txt"]
    done = subprocess.run(command, cwd=ROOT, env=pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Before that.


class House:
    """A folder with the Makefile and nothing to install, and a PATH that has only what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder / "house", folder / "programs"
        for one in (self.folder, self.programs):
            one.mkdir()
        for name in ("requirements.txt", "requirements-dev.txt"):
            (self.folder / name).touch()
        (self.folder / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
        (self.folder / "app.py").write_text("print('It serves.')")
        (self.programs / "touch").symlink_to(shutil.which("touch") or "")

    def has(self, name: str, version: str | None = None) -> Path:
        """Puts a Python there: this one, or one that says it is of this version and does nothing else."""
        path = self.programs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if version is None:
            path.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        else:
            path.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "Python {version}" && exit\nexit 1\n')
        path.chmod(0o755)
        return path

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.programs), "PIP_NO_INDEX": "1"}
        command = [shutil.which("make") or "make", "run", *words]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def house(tmp_path: Path) -> House:
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    return House(tmp_path)


def refused(done: subprocess.CompletedProcess[str], found: str) -> None:
    assert done.returncode != 0
    first, *_ = done.stderr.splitlines()
    assert first == (
        f"Stepwise needs Python 3.11 or newer, and found {found}: install a newer one, or name it, as in: "
        "make PYTHON3=/path/to/python3.12"
    )
    assert "Installing" not in done.stdout


def test_an_older_python_is_refused_in_words_before_anything_is_installed(house: House) -> None:
    refused(house.make(), "none")
    house.has("python3", "3.10.13")
    refused(house.make(), "Python 3.10.13")
    named = house.has("elsewhere/python", "3.9.2")
    house.has("python3.12")
    refused(house.make(f"PYTHON3={named}"), "Python 3.9.2")
    assert not (house.folder / ".venv").exists()


def test_a_newer_one_is_found_by_its_name_and_an_older_virtual_environment_is_made_anew(house: House) -> None:
    house.has("python3", "3.10.13")
    house.has("python3.12")
    older = house.has("../house/.venv/bin/python", "3.10.13")
    (house.folder / ".venv" / ".run").touch()  # all was installed, with that one
    done = house.make()
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("It serves.\n")
    assert subprocess.run([older, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]).returncode == 0
    assert "Installing" not in house.make().stdout
