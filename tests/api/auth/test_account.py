"""The server as an account that owns nothing: no home, another's temporary files, a disk that is full.

As root, it is started as a user and group of its own, who may read this checkout and its Python wherever they
lie (CAP_DAC_READ_SEARCH), and may write only where anyone may. Otherwise it is this account's, to which the
same folders are closed. The full disk is a small one in memory that only the server sees.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from api.server.startup import set_gradio_folder
from pipeline.errors import SettingError
from tests.conftest import running
from tests.support.rest import TIMEOUT
from tests.support.tiny import SMALL

USER = 12345
AS_USER = (
    f"setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all,+dac_read_search "
    "--ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search"
)
ROOT = os.geteuid() == 0
ASKED = {
    "prompt": "a fox", "size": "128x128", "steps": 2, "response_format": "url", "output_format": "webp"
}  # fmt: skip


def can(command: str) -> bool:
    """Whether this machine lets a test do so; a container may not."""
    return subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0


def launch(*steps: str, home: str | None) -> tuple[str, ...]:
    """For `running`: the server as that account, after these shell commands. The process stays the same one.

    Args:
        home: its HOME; None: it has none, and no entry among the users either where it is a user of its own.
    """
    named = f"HOME={shlex.quote(home)}" if home else "-u HOME"
    unset = "-u HF_HOME -u XDG_DATA_HOME -u GRADIO_TEMP_DIR" + ("" if home else " -u STEPWISE_DATA")
    server = f"{AS_USER if ROOT else ''} env {unset} {named} {shlex.quote(sys.executable)} app.py"
    words = " && ".join([*steps, f"exec {server}"])
    shell = ["unshare", "-m" if ROOT else "-rm", "sh", "-c", words]
    if not any(step.startswith("mount") for step in steps):
        shell = shell[2:]
    return "-c", f"import os; os.execvp({shell[0]!r}, {shell!r})"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every account may go through; pytest's own are closed to others."""
    if ROOT and not can(f"{AS_USER} true"):
        pytest.skip("no other account can be taken on here")
    path = Path(tempfile.mkdtemp(prefix="account-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def own(path: Path) -> Path:
    """A folder of the server's account."""
    path.mkdir()
    if ROOT:
        os.chown(path, USER, USER)
    return path


def foreign(path: Path) -> Path:
    """A folder in which the server's account can write nothing."""
    path.mkdir(mode=0o700 if ROOT else 0o500)
    return path


def draws(url: str) -> None:
    """By every way that gives a picture's address."""
    images, info = Client(url, verbose=False).predict(**SMALL, api_name="/generate")
    assert info["phase"] == "finished"
    assert Path(images[0]["image"]).read_bytes().startswith(b"\x89PNG")
    answer = httpx.post(f"{url}/v1/images/generations", json=ASKED, timeout=TIMEOUT)
    assert answer.status_code == 200, answer.text
    assert httpx.get(answer.json()["data"][0]["url"], timeout=TIMEOUT).content[8:12] == b"WEBP"


def refusal(url: str) -> str:
    """In which words Gradio's client is told that there is no picture."""
    try:
        _, info = Client(url, verbose=False).predict(**SMALL, api_name="/generate")
    except AppError as error:
        return str(error)
    assert info["phase"] == "failed"
    return info["error"]


def test_it_draws_beside_a_gradio_of_another_account_and_with_a_home_that_can_only_be_read(
    place: Path,
) -> None:
    temporary = own(place / "tmp")
    foreign(temporary / "gradio")
    data, home = own(place / "data"), foreign(place / "home")
    home.chmod(0o555)
    settings = {"TMPDIR": str(temporary), "STEPWISE_DATA": str(data)}
    with running(place, *launch("umask 0", home=str(home)), **settings) as (url, _):
        draws(url)
        assert list((temporary / "gradio").iterdir()) == []
        assert list(home.iterdir()) == []
        for path in data.rglob("*"):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        pictures = [len(re.findall(b"IEND", path.read_bytes())) for path in data.rglob("*") if path.is_file()]
        assert sum(pictures) == 2  # of two drawings, each once


def test_without_a_home_it_keeps_jobs_in_a_temporary_folder_and_says_so(place: Path) -> None:
    temporary = own(place / "tmp")
    left = own(temporary / "stepwise-left")  # by a server that was killed
    (left / "lock").touch()
    if ROOT:
        os.chown(left / "lock", USER, USER)
    settings = {"TMPDIR": str(temporary)}
    with running(place, *launch(home=None), **settings) as (url, _):
        draws(url)
        assert not left.exists()
        (data,) = temporary.glob("stepwise-*")
        assert data.stat().st_mode & 0o777 == 0o700
    said = (place / "server.log").read_text()
    assert "Set STEPWISE_DATA" in said and str(data) in said
    assert "Traceback" not in said
    assert not data.exists()


def test_a_folder_for_gradio_that_cant_be_written_to_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "gradio"))
    with pytest.raises(
        SettingError, match=r"^GRADIO_TEMP_DIR is .*/gradio, where nothing can be written: Not a dir"
    ):
        set_gradio_folder(tmp_path / "data")


def test_where_no_temporary_file_can_be_written_it_draws_and_a_full_disk_is_told_in_words(
    place: Path,
) -> None:
    full, data = place / "tmp", own(place / "data")
    full.mkdir()
    owner = f",uid={USER},gid={USER}" if ROOT else ""
    steps = (
        f"mount -t tmpfs -o size=64k,mode=1777 tmpfs {full}",
        f"! dd if=/dev/zero of={full}/filling bs=4k 2>/dev/null",
        "for one in /tmp /var/tmp; do mount --bind $one $one && mount -o remount,bind,ro $one || exit; done",
        f"mount -t tmpfs -o size=8m,mode=0700{owner} tmpfs {data}",
    )
    if not can(f"unshare {'-m' if ROOT else '-rm'} sh -c '{' && '.join(steps)}'"):
        pytest.skip("no disk can be mounted here")
    settings = {"TMPDIR": str(full), "STEPWISE_DATA": str(data)}
    with running(place, *launch(*steps, home=str(data)), **settings) as (url, process):
        draws(url)
        seen = Path(f"/proc/{process.pid}/root{data}")  # as the server sees it
        with (seen / "filling").open("wb", buffering=0) as filling, pytest.raises(OSError, match="No space"):
            while True:
                filling.write(bytes(4096))
        answer = httpx.post(f"{url}/v1/images/generations", json=ASKED, timeout=TIMEOUT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "disk_full")
        assert "disk" in answer.json()["error"]["message"]
        assert "disk" in refusal(url)
        (seen / "filling").unlink()
        draws(url)
    assert "Traceback" not in (place / "server.log").read_text()
