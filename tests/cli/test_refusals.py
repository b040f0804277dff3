"""What can't be drawn or written is said before anything is loaded, in words, with exit code 2 or 1."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image

import cli.__main__
from cli.__main__ import parser
from cli.draw import draw
from cli.files import Target
from pipeline.errors import ModelUnavailable, UnknownModel
from tests.cli.command import CLI, SMALL, Terminal, answering, files, run

NOWHERE = "http://127.0.0.1:1"
"""A server that must not be asked: what these tests refuse is refused before."""

USAGE = {
    "no command": ((), "COMMAND"),
    "an unknown command": (("paint",), "paint"),
    "an unknown option": (("draw", "a fox", "--speed", "9"), "--speed"),
    "another program's option": (
        ("draw", "a fox", "--cfg-scale", "7"),
        "Use --guidance instead of --cfg-scale.",
    ),
    "another one, with a sign": (
        ("draw", "a fox", "--num_images=2"),
        "Use --images instead of --num_images.",
    ),
    "OpenAI's": (("draw", "a fox", "--negative-prompt", "x"), "Use --negative instead of --negative-prompt."),
    "an abbreviated option": (("draw", "a fox", "--guid", "9"), "--guid"),
    "steps that are no number": (("draw", "a fox", "--steps", "many"), "--steps: invalid int value: 'many'"),
    "no prompt": (("draw",), "Give a prompt"),
    "an empty prompt": (("draw", "  "), "prompt is empty"),
    "a prompt that is no text": (("draw", "a \x07 fox"), "U+0007"),
    "a guidance that is no number": (("draw", "a fox", "--guidance", "nan"), "guidance must be a finite"),
    "an infinite guidance": (("draw", "a fox", "--guidance", "1e999"), "guidance must be a finite"),
    "a seed past the largest": (("draw", "a fox", "--seed", str(2**53)), "seed must be from 0 to"),
    "a size of one side": (("draw", "a fox", "--size", "512"), "--size must be width x height"),
    "a size of three sides": (("draw", "a fox", "--size", "5x5x5"), "--size must be width x height"),
    "a size twice": (("draw", "a fox", "--size", "5x5", "--width", "5"), "leave out --width"),
    "an ending that is no format": (("draw", "a fox", "-o", "fox.gif"), "must end in .png"),
    "no ending": (("draw", "a fox", "-o", "fox"), "must end in .png"),
    "several pictures to standard output": (("draw", "a fox", "--images", "2", "-o", "-"), "one picture"),
    "JSON and a picture to standard output": (("draw", "a fox", "--json", "-o", "-"), "choose one"),
    "a server that is no address": (("draw", "a fox", "--server", "localhost:7860"), "http://"),
    "a port that is none": (("serve", "--port", "70000"), "1 to 65535"),
    "a host that isn't this machine": (("serve", "--host", "192.0.2.1", "--port", "7860"), "192.0.2.1"),
}


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process, which keeps its own signals and threads: (exit code, output, words)."""
    monkeypatch.chdir(tmp_path)
    for name in ("listen", "mute_threads"):
        monkeypatch.setattr(cli.__main__, name, lambda: None)

    def command(*words: str) -> tuple[int, str, str]:
        if words[:1] == ("draw",) and "--server" not in words:
            words = (*words, "--server", NOWHERE)
        try:
            code = cli.__main__.main(words)
        except SystemExit as ended:  # argparse's
            code = int(ended.code or 0)
        return (code, *capsys.readouterr())

    return command


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_refused_in_words_with_exit_code_2(
    refused: Callable[..., tuple[int, str, str]], tmp_path: Path, case: str
) -> None:
    words, expected = USAGE[case]
    code, output, said = refused(*words)
    assert code == 2
    assert output == "" or "--json" in words
    assert expected in said
    assert files(tmp_path) == []


def test_a_prompt_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    ended = run(tmp_path, "draw", b"a \xff fox", "--server", NOWHERE)  # type: ignore[arg-type]
    assert ended.returncode == 2
    assert b"U+DCFF" in ended.stderr


def test_what_a_server_refuses_is_refused_in_its_words(server: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "draw", "a fox", "--model", "sketch", "--steps", "400", "--server", server)
    assert ended.returncode == 2
    assert ended.stderr.decode() == "stepwise: steps must be from 1 to 60 for Sketch; got 400.\n"


def test_an_unknown_model_is_answered_with_the_known_ones_as_json_too(server: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "draw", "a fox", "--model", "dall-e", "--server", server, "--json")
    assert ended.returncode == 2
    (line,) = ended.stdout.splitlines()
    words = json.loads(line)["error"]
    assert 'model "dall-e" is not known' in words
    assert "sketch" in words
    assert ended.stderr.decode() == f"stepwise: {words}\n"


def test_a_model_that_cant_run_on_this_machine_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPWISE_DEVICE", "cpu")
    with pytest.raises(ModelUnavailable, match=r"can't run here\. Needs a GPU"):
        draw(parser().parse_args(["draw", "a fox", "--model", "z-image-turbo"]))
    with pytest.raises(UnknownModel, match="Known models: "):
        draw(parser().parse_args(["draw", "a fox", "--model", "dall-e"]))
    assert files(tmp_path) == []


@pytest.mark.parametrize("text", [b"\xff\xfe", b"x" * 40_001, b"", b"\n"])
def test_a_prompt_on_standard_input_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    ended = run(tmp_path, "draw", "-", "--server", NOWHERE, text=text)
    assert ended.returncode == 2
    assert ended.stderr.decode().startswith("stepwise: prompt ")


def in_the_way(folder: Path) -> dict[str, tuple[str, str]]:
    """Names that can't be written, and the words for it."""
    (folder / "file").write_text("")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    return {
        "no folder": ("missing/fox.png", "No such file or directory"),
        "no folder to choose a name in": ("missing/", "No such file or directory"),
        "a file as the folder": ("file/fox.png", "Not a directory"),
        "a pipe": ("pipe.png", "no plain file"),
        "a link to itself": ("loop.png", "no plain file"),
        "a name that is too long": (f"{'x' * 300}.png", "File name too long"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "no folder",
        "no folder to choose a name in",
        "a file as the folder",
        "a pipe",
        "a link to itself",
        "a name that is too long",
    ],
)
def test_a_file_that_cant_be_written_is_said_before_drawing(
    refused: Callable[..., tuple[int, str, str]], tmp_path: Path, case: str
) -> None:
    name, expected = in_the_way(tmp_path)[case]
    before = files(tmp_path)
    code, _, said = refused("draw", "a fox", "-o", name)
    assert code == 1
    assert expected in said
    assert len(said.splitlines()) == 1
    assert files(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no POSIX permissions")
def test_a_folder_without_permission_is_said_before_drawing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    if os.geteuid() == 0:  # to root, only what the kernel itself keeps is closed
        folder = Path("/sys")
    ended = run(tmp_path, "draw", "a fox", "-o", str(folder / "fox.png"), "--server", NOWHERE)
    assert ended.returncode == 1
    assert "can't be written: " in ended.stderr.decode()


def test_a_full_disk_is_said_before_drawing(tmp_path: Path) -> None:
    """A limit on a file's size stands in for the disk's end: the same call fails, at the same place."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    ended = run(
        tmp_path,
        *("draw", "a fox", "-o", "fox.png", "--server", NOWHERE),
        start=partial(subprocess.Popen, preexec_fn=limit),
    )
    assert ended.returncode == 1
    assert ended.stderr.decode() == "stepwise: fox.png can't be written: File too large.\n"
    assert files(tmp_path) == []


def test_a_disk_that_fills_up_meanwhile_leaves_no_half_picture(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fox.png").write_text("the one before")
    check = Target.ensure_writable

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def check_and_fill(self: Target, images: int) -> None:
        check(self, images)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    monkeypatch.setattr(Target, "ensure_writable", check_and_fill)
    try:
        code = draw(
            parser().parse_args(["draw", "a fox", *SMALL, "--server", server, "-o", "fox.png", "--json"])
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert (last["phase"], last["files"]) == ("failed", [])
    assert last["error"] == "fox.png can't be written: File too large."
    assert last["error"] in printed.err
    assert files(tmp_path) == ["fox.png"]
    assert Path("fox.png").read_text() == "the one before"


def test_a_picture_is_never_written_to_a_terminal(tmp_path: Path) -> None:
    with Terminal(tmp_path, [*CLI, "draw", "a fox", "-o", "-", "--server", NOWHERE]) as terminal:
        assert terminal.end() == 2
    assert "redirect it" in terminal.shown


@pytest.mark.parametrize("made", ["missing", "text", "without a recipe"])
def test_a_picture_that_cant_be_drawn_again_is_said(
    refused: Callable[..., tuple[int, str, str]], tmp_path: Path, made: str
) -> None:
    picture = tmp_path / "picture.png"
    if made == "text":
        picture.write_text("no picture")
    elif made == "without a recipe":
        Image.new("RGB", (8, 8)).save(picture)
    code, _, said = refused("draw", "--again", "picture.png")
    assert code == (1 if made == "missing" else 2)
    assert said.startswith("stepwise: picture.png")
    assert len(said.splitlines()) == 1


def test_what_isnt_a_stepwise_is_said(tmp_path: Path) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>a page \x1b[2J of another kind")

        def log_message(self, *_: object) -> None: ...

    with answering(Other) as address:
        ended = run(tmp_path, "models", "--server", address)
    assert ended.returncode == 1
    assert ended.stderr.decode().startswith("stepwise: No Stepwise answers at http://127.0.0.1:")
    assert "Traceback" not in ended.stderr.decode()
    assert "\x1b" not in ended.stderr.decode()


def test_a_full_standard_output_is_said(server: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*CLI, "models", "--server", server], stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 1
    assert ended.stderr.decode() == "stepwise: Standard output can't be written: No space left on device.\n"
