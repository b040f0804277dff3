"""Names of pictures: those given are replaced whole, those chosen never replace anything."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from cli.files import Target


@pytest.fixture
def pngs() -> tuple[bytes, ...]:
    """Three different pictures."""
    buffers = [io.BytesIO() for _ in range(3)]
    for buffer, colour in zip(buffers, ("red", "green", "blue"), strict=True):
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return tuple(buffer.getvalue() for buffer in buffers)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_is_the_prompts_and_the_seeds(folder: Path, pngs: tuple[bytes, ...]) -> None:
    target = Target(None, 3)
    assert target.save(pngs, 'A sign that says "OPEN"!', 7) == [
        "a-sign-that-says-open-7.png",
        "a-sign-that-says-open-8.png",
        "a-sign-that-says-open-9.png",
    ]
    assert (folder / "a-sign-that-says-open-9.png").read_bytes() == pngs[2]


def test_a_chosen_name_that_is_taken_counts_on(folder: Path, pngs: tuple[bytes, ...]) -> None:
    names = [Target(None, 1).save(pngs[k : k + 1], "a fox", 7) for k in range(3)]
    assert names == [["a-fox-7.png"], ["a-fox-7-2.png"], ["a-fox-7-3.png"]]
    assert (folder / "a-fox-7.png").read_bytes() == pngs[0]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("🦊", "picture-7.png"),
        ("../../etc/passwd", "etc-passwd-7.png"),
        ("-rf /", "rf-7.png"),
        (".hidden", "hidden-7.png"),
        ("Ein Fuchs, größer", "ein-fuchs-größer-7.png"),
        ("two\nlines", "two-lines-7.png"),
        ("fox " * 100, "fox-fox-fox-fox-fox-fox-fox-fox-fox-fox-7.png"),
        ("狐" * 100, "狐" * 40 + "-7.png"),
    ],
)
def test_whatever_the_prompt_the_name_is_a_plain_one_in_this_folder(
    folder: Path, pngs: tuple[bytes, ...], prompt: str, name: str
) -> None:
    assert Target(None, 1).save(pngs[:1], prompt, 7) == [name]
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_folder_is_where_names_are_chosen(folder: Path, pngs: tuple[bytes, ...]) -> None:
    (folder / "pictures").mkdir()
    assert Target("pictures", 1).save(pngs[:1], "a fox", 7) == ["pictures/a-fox-7.png"]


def test_a_given_name_is_replaced_and_several_are_numbered(folder: Path, pngs: tuple[bytes, ...]) -> None:
    (folder / "fox.png").write_text("the one before")
    assert Target("fox.png", 1).save(pngs[:1], "a fox", 7) == ["fox.png"]
    assert (folder / "fox.png").read_bytes() == pngs[0]
    assert Target("fox.v2.PNG", 2).save(pngs[:2], "a fox", 7) == ["fox.v2-1.PNG", "fox.v2-2.PNG"]


def test_a_symbolic_links_file_is_replaced_and_not_the_link(folder: Path, pngs: tuple[bytes, ...]) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "fox.png").symlink_to("elsewhere/real.png")
    target = Target("fox.png", 1)
    target.ensure_writable(1)
    target.save(pngs[:1], "a fox", 7)
    assert (folder / "fox.png").is_symlink()
    assert (folder / "elsewhere" / "real.png").read_bytes() == pngs[0]
    assert [path.name for path in (folder / "elsewhere").iterdir()] == ["real.png"]
