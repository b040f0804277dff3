"""What another account of the machine left under a name of ours is refused in words, and leads nowhere.

As root, such an account really tries (a fork that has become it); otherwise what it left behind is made by
this one, and the rest is skipped.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from cli.files import Target
from jobs.data_dir.folder import DataFolder
from jobs.eta.cost_model import DeviceCosts, read_costs, write_costs
from jobs.store.event_log import LogReader, LogWriter, last_event
from jobs.store.log_names import log_path
from jobs.store.retention import delete_old_files
from jobs.store.sqlite import SqliteStore
from pipeline.errors import SettingError, StoreError
from pipeline.events import Event
from tests.security.support.accounts import (
    FILES,
    FOLDERS,
    ID,
    JOB,
    STRANGER,
    as_stranger,
    mode,
    needs_root,
    older,
    open_ones,
    plant,
)


@pytest.mark.parametrize("to", ["something", "nothing"])
@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_link_under_a_name_of_ours_is_refused_in_words_and_nothing_outside_is_touched(
    place: Path, name: str, to: str
) -> None:
    outside, data = place / "outside", place / "data"
    outside.mkdir()
    outside.chmod(0o755)
    target = outside / "target"
    if to == "something" and name in FOLDERS:
        target.mkdir()
        log_path(target, ID, 1).write_bytes(b"theirs")
    elif to == "something":
        target.write_bytes(b"theirs")
    data.mkdir()
    data.chmod(0o1777)
    plant(data / name, target)
    before = [(path, path.stat()) for path in (outside, *outside.rglob("*"))]
    with pytest.raises(SettingError, match=rf"{name} is a symbolic link.*STEPWISE_DATA"):
        DataFolder(data)
    assert [path for path, _ in before] == [outside, *outside.rglob("*")]
    for path, status in before:
        assert (path.stat().st_mode, path.stat().st_mtime_ns) == (status.st_mode, status.st_mtime_ns)
    (data / name).unlink()
    DataFolder(data).close()  # and it has let go of the folder


@pytest.mark.parametrize("what", ["link", "link to nothing", "second name", "pipe"])
def test_a_database_is_made_through_nothing_that_isnt_its_own(tmp_path: Path, what: str) -> None:
    path, target = tmp_path / "jobs.sqlite", tmp_path / "target"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "second name":
        target.touch(0o644)
        path.hardlink_to(target)
    else:
        if what == "link":
            target.touch(0o644)
        path.symlink_to(target)
    with pytest.raises(StoreError, match=r"jobs\.sqlite is (a symbolic link|a file that has|no plain file)"):
        SqliteStore(path)
    assert not target.exists() or (target.stat().st_size == 0 and mode(target) == 0o644)


def test_sqlites_own_files_are_looked_at_once_more_when_it_has_opened_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp, another account may make one between the look and the opening."""
    connect = sqlite3.connect

    def after_a_stranger(path: Path, **options: object) -> sqlite3.Connection:
        plant(tmp_path / "jobs.sqlite-journal", tmp_path / "elsewhere")
        return connect(path, **options)  # type: ignore[call-overload,no-any-return]

    SqliteStore(tmp_path / "jobs.sqlite").close()
    monkeypatch.setattr("sqlite3.connect", after_a_stranger)
    with pytest.raises(StoreError, match=r"jobs\.sqlite-journal is a symbolic link"):
        SqliteStore(tmp_path / "jobs.sqlite")


def test_links_among_the_events_lead_nowhere(tmp_path: Path) -> None:
    data, outside = older(tmp_path / "data"), tmp_path / "outside"
    events = data / "events"
    shutil.copyfile(log_path(events, ID, 1), outside)
    outside.chmod(0o644)
    os.utime(outside, (1, 1))
    link = log_path(events, ID, 2)
    plant(link, outside)
    (events / "more").symlink_to(tmp_path)
    os.mkfifo(log_path(events, ID, 3), 0o666)
    DataFolder(data).close()
    assert mode(outside) == 0o644
    assert mode(log_path(events, ID, 1)) == 0o600
    assert last_event(link) is None
    assert last_event(log_path(events, ID, 3)) is None  # and nobody waits for its writer
    with LogReader(link) as reader:
        assert reader.read() == []
    assert outside.stat().st_mtime == 1
    delete_old_files(events, 0, 0, ())
    assert outside.exists()
    with LogWriter(link) as log:  # a new attempt: the link goes, and not what it leads to
        log.append(Event(JOB, "finished"))
    assert outside.stat().st_mtime == 1 and not link.is_symlink()


def test_the_pace_is_read_from_a_plain_file_alone_and_written_beside_a_link(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_costs(tmp_path / "outside", {"a: line": DeviceCosts()})
    before = (tmp_path / "outside").read_bytes()
    (tmp_path / "pace.json").symlink_to(tmp_path / "outside")
    assert read_costs(tmp_path / "pace.json") == {}
    write_costs(tmp_path / "pace.json", {"b: line": DeviceCosts()})
    assert (tmp_path / "outside").read_bytes() == before
    assert read_costs(tmp_path / "pace.json").keys() == {"b: line"}


@needs_root
@pytest.mark.parametrize("name", ["jobs.sqlite", "lock", "events", "gradio"])
def test_what_another_account_made_under_a_name_of_ours_is_refused(place: Path, name: str) -> None:
    data = place / "data"
    data.mkdir()
    data.chmod(0o1777)
    made = as_stranger(lambda: (data / name).mkdir(0o777) if name in FOLDERS else (data / name).touch(0o666))
    assert made == "None"
    with pytest.raises(SettingError, match=rf"{name} belongs to another account \(number {STRANGER}\)"):
        DataFolder(data)


@needs_root
def test_what_is_used_later_in_a_folder_that_many_share_is_ours_from_the_start(place: Path) -> None:
    """A server takes its folder seconds before it uses all of it."""
    data = place / "data"
    data.mkdir()
    data.chmod(0o1777)
    folder = DataFolder(data)
    for name in ("events", "gradio", "lock", "pid"):
        assert as_stranger((data / name).unlink) == as_stranger((data / name).rmdir) == "PermissionError"
        assert as_stranger(lambda name=name: (data / name).rename(data / "away")) == "PermissionError"  # type: ignore[misc]
    write_costs(place / "outside", {"a: line": DeviceCosts()})
    theirs = (place / "outside").read_bytes()
    assert as_stranger(lambda: (data / "pace.json").write_bytes(theirs)) == repr(len(theirs))
    assert as_stranger(lambda: (data / "jobs.sqlite").touch(0o666)) == "None"
    assert read_costs(folder.pace) == {}
    with pytest.raises(StoreError, match=r"jobs\.sqlite belongs to another account"):
        SqliteStore(folder.database)
    folder.close()


@needs_root
def test_a_folder_of_another_account_and_a_link_of_theirs_to_one_of_ours_are_refused(place: Path) -> None:
    open_to_all, ours = place / "open", place / "ours"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    ours.mkdir(0o700)
    assert as_stranger(lambda: (open_to_all / "data").mkdir(0o777)) == "None"
    with pytest.raises(SettingError, match=rf"belongs to another account \(number {STRANGER}\)"):
        DataFolder(open_to_all / "data")
    assert as_stranger(lambda: (open_to_all / "link").symlink_to(ours)) == "None"
    for path in (open_to_all / "link", open_to_all / "link" / "below"):
        with pytest.raises(SettingError, match="link is a symbolic link of another account's"):
            DataFolder(path)
    assert list(ours.iterdir()) == [] and list((open_to_all / "data").iterdir()) == []


def test_a_folder_that_every_account_may_write_to_is_refused_unless_it_is_a_mounted_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = older(tmp_path / "data")
    (data / "somebody's").touch()
    data.chmod(0o777)
    with pytest.raises(SettingError, match=rf"every account of this machine can write to {data}.*STEPWISE"):
        DataFolder(data)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == data)
    with caplog.at_level(logging.WARNING, "stepwise"):
        DataFolder(data).close()
    assert "Jobs aren't safe from other accounts of this machine: every account of this" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "stepwise"):
        DataFolder(data / "below").close()
    assert f"Another folder can be put in the place of {data / 'below'}: every account" in caplog.text


def test_the_owners_own_link_to_another_disk_goes_on_working(tmp_path: Path) -> None:
    older(tmp_path / "disk" / "jobs")
    (tmp_path / "data").symlink_to(Path("disk") / "jobs")
    folder = DataFolder(tmp_path / "data")
    assert folder.path == tmp_path.resolve() / "disk" / "jobs"
    with pytest.raises(SettingError, match="Another Stepwise"):
        DataFolder(tmp_path / "disk" / ".." / "disk" / "jobs", patience=0)
    SqliteStore(folder.database).close()
    folder.close()
    assert open_ones(tmp_path / "disk") == []
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(SettingError, match="symbolic links"):
        DataFolder(tmp_path / "round")


def test_a_folder_of_ours_among_the_temporary_files_isnt_deleted_for_a_lock_that_others_put_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("jobs.data_dir.folder.usual_path", lambda: tmp_path / "file")
    (tmp_path / "file").touch()
    (drop := tmp_path / "stepwise-drop").mkdir()
    drop.chmod(0o777)
    (drop / "lock").touch()
    DataFolder().close()
    assert drop.exists()


def test_a_picture_is_written_through_no_link_under_a_name_that_we_choose(tmp_path: Path) -> None:
    (tmp_path / "a-fox-1.png").symlink_to(tmp_path / "elsewhere.png")
    (path,) = Target(str(tmp_path), 1).save((b"picture",), "a fox", 1)
    assert path.endswith("a-fox-1-2.png")
    assert not (tmp_path / "elsewhere.png").exists()
