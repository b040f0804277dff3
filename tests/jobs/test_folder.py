"""One server has a data folder, and no server needs a setting to get one."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.folder import DataFolder, usual_path
from pipeline.errors import SettingError

HOLD = """
import sys, time
from pathlib import Path
from jobs.folder import DataFolder
held = DataFolder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("jobs.folder.usual_path", lambda: tmp_path / "stepwise")
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
        cwd=Path(__file__).parent.parent.parent,
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


def test_a_folder_that_was_asked_for_and_cant_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(SettingError, match=r"Jobs can't be kept in .*data.*STEPWISE_DATA"):
        DataFolder(tmp_path / "data")


def test_a_space_with_storage_keeps_jobs_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.folder.SPACE_STORAGE", tmp_path)
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert usual_path() != tmp_path / "stepwise"
    monkeypatch.setenv("SPACE_ID", "me/stepwise")
    assert usual_path() == tmp_path / "stepwise"
