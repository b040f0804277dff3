"""One server has a data folder, and no server needs a setting to get one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs.data_dir.folder import DataFolder, ensure_temporary, usual_path
from pipeline.errors import SettingError

HOLD = """
import sys, time
from pathlib import Path
from jobs.data_dir.folder import DataFolder
held = DataFolder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("jobs.data_dir.folder.usual_path", lambda: tmp_path / "stepwise")
    return tmp_path / "stepwise"


def test_a_folder_that_another_server_has_is_refused_in_words_until_that_one_lets_go(tmp_path: Path) -> None:
    first = DataFolder(tmp_path / "data")
    with pytest.raises(SettingError, match=r"Another Stepwise uses the folder .*STEPWISE_DATA"):
        DataFolder(tmp_path / "data", patience=0)
    first.close()
    DataFolder(tmp_path / "data", patience=0).close()


def test_a_killed_server_holds_its_folder_no_longer(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent.parent.parent.parent,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(SettingError, match=rf"Another Stepwise uses .* \(process {process.pid}\): end"):
            DataFolder(tmp_path / "data", patience=0)
        process.send_signal(signal.SIGKILL)
    DataFolder(tmp_path / "data", patience=0).close()


def test_servers_without_a_setting_each_have_a_folder_and_the_first_is_taken_again(usual: Path) -> None:
    first, second = DataFolder(), DataFolder()
    assert (first.path, second.path) == (usual, usual.with_name("stepwise-2"))
    first.close()
    third = DataFolder()
    assert third.path == usual
    second.close()
    third.close()


def test_where_the_usual_place_cant_be_written_to_the_server_runs_all_the_same_and_warns(
    usual: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual.write_text("a file stands where the folder should be")
    with caplog.at_level(logging.WARNING, "stepwise"):
        folder = DataFolder()
    assert folder.logs.is_dir()
    assert "STEPWISE_DATA" in caplog.text and str(folder.path) in caplog.text
    folder.close()


def test_a_temporary_folder_goes_with_its_server_and_what_killed_servers_left_with_the_next(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual.write_text("a file stands where the folder should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = DataFolder()
    (left := tmp_path / "stepwise-left").mkdir()
    (left / "lock").touch()
    (somebody := tmp_path / "stepwise-notes").mkdir()
    second = DataFolder()
    assert not left.exists()
    assert somebody.exists() and first.logs.is_dir() and second.logs.is_dir()
    for folder in (first, second):
        folder.close()
        assert not folder.path.exists()


def test_where_nothing_can_be_written_at_all_it_says_so(
    usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual.write_text("a file stands where the folder should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(
        SettingError, match=r"STEPWISE_DATA.* Nor can they be kept among the temporary files: "
    ):
        DataFolder()


def test_temporary_files_go_to_the_data_folder_where_there_is_no_other_place_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The places that Python tries are made none: nobody can close /tmp to a test's own process."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(
        "tempfile._candidate_tempdir_list", lambda: [path for path in [os.getenv("TMPDIR")] if path]
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    ensure_temporary(tmp_path / "data")
    assert tempfile.gettempdir() == str(tmp_path / "data" / "tmp")
    assert (tmp_path / "data" / "tmp").stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    (tmp_path / "file").touch()
    with pytest.raises(
        SettingError, match=r"nothing can be written to .*/file/tmp either: .*Set TMPDIR or STEP"
    ):
        ensure_temporary(tmp_path / "file")


def test_other_accounts_can_look_into_no_folder_also_of_an_older_version(usual: Path, tmp_path: Path) -> None:
    for path in (usual, tmp_path / "named"):
        (path / "events").mkdir(parents=True)
        (path / "events").chmod(0o755)
        path.chmod(0o755)
    folders = DataFolder(), DataFolder(tmp_path / "named"), DataFolder(tmp_path / "new")
    for folder in folders:
        assert folder.logs.stat().st_mode & 0o777 == 0o700
        assert (folder.path / "lock").stat().st_mode & 0o777 == 0o600
        folder.close()
    assert [folder.path.stat().st_mode & 0o777 for folder in folders] == [0o700, 0o700, 0o700]


def test_a_folder_that_was_asked_for_and_cant_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(SettingError, match=r"Jobs can't be kept in .*data.*STEPWISE_DATA"):
        DataFolder(tmp_path / "data")


def test_a_space_with_storage_keeps_jobs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.data_dir.folder.SPACE_STORAGE", tmp_path)
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert usual_path() != tmp_path / "stepwise"
    monkeypatch.setenv("SPACE_ID", "me/stepwise")
    assert usual_path() == tmp_path / "stepwise"
