"""Which Python: what the requirements want is promised, and checked in words before anything is installed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import uv

from tests.support.tiny import ROOT

FLOOR = "3.11"
SUPPORTED = (FLOOR, "3.12", "3.13")
UNREACHABLE = re.compile("error sending request|Failed to fetch|timed out|dns error|tcp connect error")
"""What uv says where there is no index to ask."""
AS_PIP = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
"""Where this machine's packages come from: settings of pip's, and the variables by which uv is told."""


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
def sources() -> dict[str, str]:
    """The environment in which uv looks for packages where pip does."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for line in listed.splitlines():  # such as global.index-url='https://…', the environment's last
        name, _, value = line.partition("=")
        if variable := AS_PIP.get(name.rpartition(".")[2].strip(":.")):
            found[variable] = ast.literal_eval(value)
    return os.environ | found


@pytest.mark.parametrize("version", SUPPORTED)
def test_all_requirements_can_be_installed_as_wheels(sources: dict[str, str], version: str) -> None:
    """uv resolves as pip does, in a tenth of the time, and downloads nothing but what an index says."""
    options = ["--quiet", "--only-binary=:all:", "--index-strategy=unsafe-best-match"]
    named = [f"--python-version={version}", "requirements-dev.txt"]
    command = [uv.find_uv_bin(), "pip", "compile", *options, *named]
    done = subprocess.run(command, cwd=ROOT, env=sources, capture_output=True, text=True)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr
    assert "gradio==" in done.stdout


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
