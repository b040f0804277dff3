"""`stepwise draw` draws, here or with another Stepwise, shows it, and writes what it drew."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from cli.__main__ import parser
from cli.draw import requested
from pipeline.engine import Engine
from pipeline.recipe import read_recipe
from tests.cli.command import LONG, SMALL, Terminal, files, run, start
from tests.cli.command import events as events_of
from tests.support.steps import Steps
from tests.support.tiny import ROOT, draw, pixels


def test_it_draws_with_a_bar_the_very_pixels_of_the_engine(engine: Engine, tmp_path: Path) -> None:
    """The script, through a symbolic link, from another folder, with this machine's engine."""
    command = tmp_path / "bin" / "stepwise"
    command.parent.mkdir()
    command.symlink_to(ROOT / "stepwise")
    folder = tmp_path / "pictures"
    folder.mkdir()
    steps = Steps(tmp_path / "steps")
    steps.hold("loading")
    words = [str(command), "draw", "a red apple", *SMALL, "-o", "apple.png"]
    with Terminal(folder, words, **steps.environment) as terminal:
        terminal.read(until="loading part")
        steps.hold(1)
        terminal.read(until="step 1 of 4")
        steps.go_on()
        assert terminal.end() == 0
    shown = terminal.shown
    assert re.search(
        r"starting.*loading part \d of \d.*step \d of 4, .* s left.*drawn in \d", shown, re.DOTALL
    ), shown
    assert "█" in shown
    assert "seed 7" in shown
    assert shown.rstrip().endswith("apple.png")
    assert files(folder) == ["apple.png"]
    picture = folder / "apple.png"
    assert read_recipe(picture).seed == 7
    assert (pixels(picture.read_bytes()) == pixels(draw(engine).images[0])).all()


@pytest.mark.sketch
def test_another_stepwise_draws_the_same_and_torch_is_never_imported(
    engine: Engine, server: str, tmp_path: Path
) -> None:
    code = (
        "import sys; from cli.__main__ import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ' '.join({'torch', 'diffusers', 'gradio'} & set(sys.modules)) or 0)"
    )
    words = ["draw", "a red apple", *SMALL, "--server", server, "-o", "apple.png"]
    ended = run(tmp_path, *words, command=[sys.executable, "-c", code])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"apple.png\n", b"")
    png = (tmp_path / "apple.png").read_bytes()
    assert (pixels(png) == pixels(draw(engine).images[0])).all()


def test_every_event_is_a_line_of_json_and_the_last_has_the_files(
    server: str, tmp_path: Path, steps: Steps
) -> None:
    steps.hold(1)
    words = ("draw", "a fox", *SMALL, "--images", "2", "--server", server, "--json", "-o", "fox.png")
    process, events = start(tmp_path, *words), []
    for event in events_of(process):
        events.append(event)
        if event["step"]:
            steps.go_on()
    assert process.stderr is not None
    assert (process.wait(120), process.stderr.read()) == (0, b"")
    phases = list(dict.fromkeys(event["phase"] for event in events))
    assert phases[-1] == "finished"
    assert "denoising" in phases
    assert [event.get("files") for event in events] == [None] * (len(events) - 1) + [
        ["fox-1.png", "fox-2.png"]
    ]
    assert {event["prompt"] for event in events} == {"a fox"}
    assert files(tmp_path) == ["fox-1.png", "fox-2.png"]
    assert [read_recipe(tmp_path / name).seed for name in files(tmp_path)] == [7, 8]


def test_the_prompt_comes_from_standard_input_and_the_picture_goes_to_standard_output(
    server: str, tmp_path: Path
) -> None:
    ended = run(tmp_path, "draw", "-", *SMALL, "--server", server, "-o", "-", text="ein “Apfel”\n".encode())
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert read_recipe(io.BytesIO(ended.stdout)).prompt == "ein “Apfel”"
    assert files(tmp_path) == []


def test_a_picture_is_drawn_again_from_its_recipe_with_what_is_given_changed(
    server: str, tmp_path: Path
) -> None:
    run(tmp_path, "draw", "a fox", *SMALL, "--guidance", "2.5", "--server", server, "-o", "fox.png")
    again = run(tmp_path, "draw", "--again", "fox.png", "--server", server, "-o", "same.png")
    assert again.returncode == 0, again.stderr
    first, same = ((tmp_path / name).read_bytes() for name in ("fox.png", "same.png"))
    assert (pixels(first) == pixels(same)).all()
    options = ["draw", "a cat", "--again", str(tmp_path / "fox.png"), "--seed", "8"]
    recipe = read_recipe(tmp_path / "fox.png").model_dump(exclude_none=True)
    assert requested(parser().parse_args(options)) == recipe | {"prompt": "a cat", "seed": 8}


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_the_names_ending_chooses_the_format(server: str, tmp_path: Path, suffix: str, kind: str) -> None:
    run(tmp_path, "draw", "a fox", *SMALL, "--server", server, "-o", f"fox.{suffix}", check=True)
    with Image.open(tmp_path / f"fox.{suffix}") as picture:
        assert (picture.format, picture.size) == (kind, (128, 128))


def test_notes_go_to_standard_error_unless_it_shall_be_quiet(server: str, tmp_path: Path) -> None:
    words = (
        "draw",
        "a fox",
        *SMALL,
        "--width",
        "130",
        "--height",
        "130",
        "--server",
        server,
        "-o",
        "fox.png",
    )
    words = tuple(word for word in words if word not in ("--size", "128x128"))
    loud = run(tmp_path, *words)
    assert loud.stderr.decode().startswith("stepwise: note: Drawn at 128 × 128 instead of 130 × 130")
    quiet = run(tmp_path, *words, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"fox.png\n", b"")


def test_a_reader_of_events_that_leaves_ends_the_drawing_without_a_word(
    server: str, tmp_path: Path, steps: Steps
) -> None:
    steps.hold(1)
    process = start(tmp_path, "draw", "a fox", *LONG, "--server", server, "--json")
    assert next(events_of(process))["phase"]
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    steps.go_on()
    assert process.wait(120) == 141
    assert process.stderr.read() == b""
    assert files(tmp_path) == []
