"""All that is made is closed to other accounts of the machine, whatever the umask is and whatever an older
version left open.

As root, such an account really tries (a fork that has become it); otherwise what it left behind is made by
this one, and the rest is skipped.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from api.server.startup import set_gradio_folder
from cli.files import Target
from jobs.data_dir.folder import DataFolder, ensure_temporary
from jobs.eta.cost_model import DeviceCosts, write_costs
from jobs.store.event_log import LogWriter, last_event
from jobs.store.log_names import log_path
from jobs.store.models import Owner
from jobs.store.sqlite import SqliteStore
from pipeline.events import Event
from tests.security.support.accounts import (
    ID,
    JOB,
    PROMPT,
    UMASKS,
    forked,
    masked,
    mode,
    needs_root,
    older,
    open_ones,
)


@UMASKS
def test_all_that_is_made_is_closed_whatever_the_umask(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(
        "tempfile._candidate_tempdir_list", lambda: [path for path in [os.getenv("TMPDIR")] if path]
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    data = tmp_path / "above" / "it" / "data"
    with masked(umask):
        ensure_temporary(data)
        folder = DataFolder(data)
        store = SqliteStore(folder.database)
        store.add(JOB, "line", Owner("address:192.0.2.1", "session"), "detached", 9, 9)
        set_gradio_folder(folder.gradio)
        write_costs(folder.pace, {"device": DeviceCosts()})
        with LogWriter(log_path(folder.logs, ID, 1)) as log:
            log.append(Event(JOB, "finished"))
        assert (data / "jobs.sqlite-wal").exists()
        assert open_ones(tmp_path) == []
        store.close()
        folder.close()
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "named" / "for" / "gradio"))
        set_gradio_folder(folder.gradio)
    assert open_ones(tmp_path) == []


@UMASKS
def test_what_an_older_version_left_open_is_closed_at_the_next_start(
    tmp_path: Path, umask: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = older(tmp_path / "data", umask)
    with masked(umask), caplog.at_level(logging.WARNING, "stepwise"):
        folder = DataFolder(data)
        SqliteStore(folder.database).close()
        folder.close()
    assert open_ones(tmp_path) == []
    assert (str(data) in caplog.text) == (umask != 0o077)
    assert last_event(log_path(folder.logs, ID, 1)) == Event(JOB, "finished")


def test_a_database_by_itself_is_closed_with_what_sqlite_keeps_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "jobs.sqlite"
    SqliteStore(path).close()
    for name in ("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"):
        (tmp_path / "folder" / name).touch()
        (tmp_path / "folder" / name).chmod(0o644)
    store = SqliteStore(path)
    assert open_ones(tmp_path) == []
    store.close()


@pytest.mark.parametrize("shared", ["somebody's file", "sticky", "a mounted disk"])
def test_a_folder_that_isnt_ours_alone_keeps_its_mode_and_what_is_ours_in_it_is_closed(
    tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = older(tmp_path / "data")
    kept = 0o1777 if shared == "sticky" else 0o755
    data.chmod(kept)
    theirs: list[str] = []
    if shared == "somebody's file":
        (data / "notes.txt").touch(0o644)
        (data / "notes.txt").chmod(0o644)
        theirs = ["notes.txt 644"]
    if shared == "a mounted disk":
        monkeypatch.setattr(Path, "is_mount", lambda path: path == data)
    for _ in range(2):  # the second time it has our files alone in it, for sure
        caplog.clear()
        with caplog.at_level(logging.WARNING, "stepwise"):
            folder = DataFolder(data)
        folder.close()
        assert mode(data) == kept
        assert open_ones(data) == theirs
        assert f"may look into {data}: it isn't Stepwise's alone, and stays as it is" in caplog.text


@needs_root
def test_a_folder_right_below_the_root_keeps_its_mode(tmp_path: Path) -> None:
    """As /srv, /mnt and /opt, which are empty on a new machine; here of a root of the test's own."""
    DataFolder(tmp_path / "first").close()  # all is imported then
    data = older(tmp_path / "srv")

    def take() -> int:
        DataFolder(Path("/srv")).close()
        return mode(Path("/srv"))

    assert forked(lambda: os.chroot(tmp_path), take) == repr(0o755)
    assert mode(data) == 0o755 and open_ones(data) == []


def test_an_empty_folder_that_is_named_is_closed_and_pictures_for_a_person_keep_the_umask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    with caplog.at_level(logging.WARNING, "stepwise"):
        DataFolder(tmp_path / "data").close()
    assert mode(tmp_path / "data") == 0o700
    assert f"could look into {tmp_path / 'data'}; now it is closed" in caplog.text
    with masked(0o022):
        Target(str(tmp_path / "fox.png"), 1).save((b"picture",), PROMPT, 1)
    assert mode(tmp_path / "fox.png") == 0o644
