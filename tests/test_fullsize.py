"""The rehearsal at full size, with tiny shapes on the CPU: what it writes, what it finds, what it says."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.fullsize import run as running
from bench.fullsize.make import count, make
from bench.fullsize.measures import growth, switch
from bench.fullsize.measures.cards import cards
from bench.fullsize.report import ROWS, report
from bench.fullsize.run import run
from bench.fullsize.shapes import FULL, SHAPES, TINY
from tests.inside import sitecustomize
from tests.support import programs


def start(command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[Any]:
    """As Popen: a part's process is forked, and its output is buffered, which is flushed at each result."""
    environment = {name: value for name, value in env.items() if name != "PYTHONUNBUFFERED"}
    return programs.start(command, env=environment, **options)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fullsize")
    make(folder, "tiny")
    return folder


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of section steps over two models, the first of which lacks a file."""
    folder = tmp_path_factory.mktemp("broken")
    make(folder, "tiny", ["sd3.5-large", "z-image-turbo"])
    (folder / "sd3.5-large" / "vae" / "config.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        sitecustomize.start_with(running, start, patch.setattr)
        assert not run(folder, ["steps"], [], folder / "results.json", limit=250)
    return folder / "results.json"


def figures(out: Path, section: str) -> dict:
    parts = json.loads(out.read_text(encoding="utf-8"))["sections"][section]
    return {key: value for part in parts.values() for key, value in part.items()}


def test_the_full_shapes_have_the_published_numbers_of_parameters():
    large = count(FULL.models["sd3.5-large"].own["transformer"])
    medium = count(FULL.models["sd3.5-medium"].own["transformer"])
    assert large[0] == pytest.approx(8.06e9, rel=0.01)
    assert medium == (pytest.approx(2.24e9, rel=0.01), pytest.approx(0.23e9, rel=0.02))
    shared = sum(sum(count(part)) * 2 for part in FULL.shared.values())
    assert shared == pytest.approx(11.3e9, rel=0.01)


def test_a_shape_with_another_number_of_parameters_is_not_written(tmp_path, monkeypatch):
    model = TINY.models["sd3.5-large"]
    wrong = replace(model.own["transformer"], parameters=8.06e9)
    models = TINY.models | {model.id: replace(model, own={"transformer": wrong})}
    monkeypatch.setitem(SHAPES, "tiny", replace(TINY, models=models))
    with pytest.raises(SystemExit, match=r"sd3.5-large/transformer has 0.000 B parameters, not 8.060 B"):
        make(tmp_path, "tiny", ["sd3.5-large"])
    assert not list(tmp_path.iterdir())


def test_variants_are_the_same_files_but_for_their_transformers(checkpoints):
    def files(model: str) -> dict[str, int]:
        folder = checkpoints / model
        return {str(one.relative_to(folder)): one.stat().st_ino for one in folder.rglob("*.safetensors")}

    large, medium = files("sd3.5-large"), files("sd3.5-medium")
    shared = {name for name in large.keys() & medium.keys() if not name.startswith("transformer/")}
    assert {name.partition("/")[0] for name in shared} == {
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "vae",
    }
    assert all(large[name] == medium[name] for name in shared)
    turbo = checkpoints / "sd3.5-large-turbo" / "transformer"
    for file in (checkpoints / "sd3.5-large" / "transformer").glob("*.safetensors"):
        assert file.read_bytes() != (turbo / file.name).read_bytes()


def test_the_engine_and_plain_diffusers_draw_the_same_picture(timed):
    one = figures(timed, "steps")["z-image-turbo"]
    assert one["phase"] == "finished"
    assert one["to diffusers' picture"] == 0
    assert all(seconds > 0 for seconds in one["ours"].values())
    assert "| **steps** | z-image-turbo, 128×128, 9 steps, guidance 0 |" in report(timed)


def test_a_part_that_dies_costs_nothing_of_the_others(timed):
    assert figures(timed, "steps")["failed: sd3.5-large"]["exit status"] == 1
    assert "| **steps** | sd3.5-large | failed, exit status 1: " in report(timed)


def test_changes_of_model_are_counted_and_what_needs_a_gpu_says_so(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(switch, "ROUNDS", 3)
    monkeypatch.setattr(switch, "FILLING", 1)
    out = tmp_path / "results.json"
    models = ["sd3.5-large", "sd3.5-large-turbo"]
    parts = {part: dict(switch.switch(checkpoints, models, part)) for part in switch.PARTS}
    out.write_text(json.dumps({"settings": [], "sections": {"switch": parts}}), encoding="utf-8")
    assert run(checkpoints, ["cards"], models, out, limit=250)
    found = figures(out, "switch")
    assert found["gpu: memory"]["switches"] == 6
    for model in models:
        assert found[f"gpu: to {model}"]["to first step"]["count"] == 3
    text = report(out)
    assert "memory after 6 changes, resident" in text
    assert "| **switch** | host | skipped: needs a CUDA GPU" in text
    assert "| **cards** | all | skipped: needs a CUDA GPU to limit this process's share of. |" in text


def test_a_smaller_card_is_a_limit_on_this_process_and_a_picture_beside_the_whole_cards(
    checkpoints, tmp_path, monkeypatch
):
    # Stands in for a CUDA GPU of 100 GB: its limit is noted, its peaks are made up, the CPU draws.
    limits: list[float] = []
    gpu = SimpleNamespace(total_memory=100 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 12.3e9)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 14.5e9)
    parts = ("whole card", "24 GB")
    found = {part: dict(cards(checkpoints, ["sd3.5-large-turbo"], part)) for part in parts}
    assert limits == [0.23]
    small = found["24 GB"]["24 GB: sd3.5-large-turbo"]
    assert small["phase"] == "finished"
    assert small["two runs"] == small["to the whole card"] == 0
    out = tmp_path / "results.json"
    out.write_text(json.dumps({"settings": [], "sections": {"cards": found}}), encoding="utf-8")
    assert "| **24 GB** | sd3.5-large-turbo | resident: peak 12.3 GB, reserved 14.5 GB |" in report(out)


def test_growth_is_looked_at_all_along(checkpoints, monkeypatch):
    monkeypatch.setattr(growth, "DRAWINGS", 4)
    ((part, one),) = growth.growth(checkpoints, ["sd3.5-medium"], "new prompts")
    assert (part, one["model"], one["drawings"], len(one["looks"])) == ("new prompts", "sd3.5-medium", 4, 5)
    assert all(look["objects"] > look["tensors"] > 0 for look in one["looks"])
    rows = list(ROWS["growth"]({part: one}))
    assert rows[0][1] == "sd3.5-medium, 4 drawings, new prompts"
    assert rows[0][2].startswith("anonymous ")
