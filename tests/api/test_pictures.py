"""Pictures as files that Gradio serves: whole, or not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.pictures import PictureFiles

PICTURE = bytes(range(256)) * 100


class Killed(BaseException):
    """Stands in for a SIGKILL in the middle of a write."""


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    return PictureFiles(SimpleNamespace(GRADIO_CACHE=str(tmp_path), temp_files=set()))  # type: ignore[arg-type]


def test_a_picture_whose_writing_was_cut_off_by_a_kill_is_whole_when_it_is_asked_for_again(
    files: PictureFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.write_bytes

    def cut_off(path: Path, content: Any) -> int:
        whole(path, content[:1000])
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "write_bytes", cut_off)
        files.write(PICTURE, "7.png")
    assert Path(files.write(PICTURE, "7.png")["path"]).read_bytes() == PICTURE


def test_the_same_picture_is_written_once(files: PictureFiles) -> None:
    first = Path(files.write(PICTURE, "7.png")["path"])
    inode = first.stat().st_ino
    assert Path(files.write(PICTURE, "7.png")["path"]) == first
    assert first.stat().st_ino == inode
    assert [path.name for path in first.parent.iterdir()] == ["7.png"]
