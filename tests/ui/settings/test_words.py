"""What the line under the picture says of a drawing that waits, or whose model is fetched; what the page says
of a model that a small GPU holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.pictures import PictureFiles
from pipeline.engine import Engine
from pipeline.errors import Busy
from pipeline.events import Event
from pipeline.request import Job
from tests.support.tiny import catalogue, entry, stand_in_gpu
from ui import controls
from ui.live import live_value, refused

JOB = Job(
    id="1", model="sketch", prompt="a", negative_prompt="", width=64, height=64, steps=4, guidance=3, seed=7,
    images=1,
)  # fmt: skip


@pytest.mark.parametrize(
    "event, words",
    [
        ({"phase": "queued"}, "Waiting for a turn"),
        ({"phase": "queued", "position": 2}, "Waiting for a turn, 2 ahead"),
        ({"phase": "queued", "position": 2, "eta": 13.7}, "Waiting for a turn, 2 ahead · about 14 s left"),
        ({"phase": "queued", "position": 9, "eta": 200.0}, "Waiting for a turn, 9 ahead · about 3 min left"),
        ({"phase": "queued", "eta": 0.2}, "Waiting for a turn · about 1 s left"),
        ({"phase": "queued", "position": 1, "preload": "Large"}, "Waiting while Large is loaded"),
        (
            {"phase": "queued", "position": 3, "preload": "Large"},
            "Waiting for a turn, 3 ahead, one of them to load Large",
        ),
        ({"phase": "downloading"}, "Looking up the model’s files"),
        (
            {"phase": "downloading", "done": 3_210_000_000, "total": 27_400_000_000},
            "Downloading the model · 3.2 of 27.4 GB",
        ),
        (
            {"phase": "downloading", "done": 500_000, "total": 900_000},
            "Downloading the model · 0.5 of 0.9 MB",
        ),
        ({"phase": "loading", "done": 2, "total": 9}, "Loading the model · part 3 of 9"),
    ],
)
def test_the_line_says_what_is_waited_for(event: dict[str, Any], words: str) -> None:
    files = PictureFiles(Path())  # there is no picture yet
    assert live_value(Event(JOB, **event), files)["line"] == words


@pytest.mark.parametrize(
    "seconds, words", [(None, "in a minute"), (39.6, "in about 40 s"), (600.0, "in about 10 min")]
)
def test_a_refusal_says_when_to_come_back(seconds: float | None, words: str) -> None:
    shown = refused("its id", str(Busy("50 drawings are waiting already.", seconds)))
    assert shown["error"] == f"50 drawings are waiting already. Try again {words}."


def test_the_page_says_how_a_small_gpu_holds_a_model(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_gpu(monkeypatch)
    needs = {"transformer": 1e-6}
    entries = [
        entry(tiny_folder, plan, device=None, needs=needs, plan=plan, about="A tiny model.")
        for plan in ("resident", "offload")
    ]
    engine = Engine(catalogue(tmp_path, *entries))
    about = {spec.id: controls.summary(spec, engine.plan(spec)) for spec in engine.catalogue}
    assert about == {
        "resident": "A tiny model.",
        "offload": "A tiny model. Here with blocks visiting the GPU one by one.",
    }
