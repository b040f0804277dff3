"""What a drawing asks of its visitor's quota on ZeroGPU, and which models its sizes hold."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from pipeline.catalog.catalogue import read_catalogue
from pipeline.devices.zerogpu_sizes import GB, ROOM, GpuSize, bytes_of, models_to_hold
from pipeline.executors.zerogpu_seconds import MARGIN, GpuSeconds, drawing_seconds
from pipeline.request import GenerationRequest, Job
from pipeline.resolve import resolve
from pipeline.weights import requirements
from tests.support.tiny import ROOT

MODELS = read_catalogue(ROOT / "models.yaml")
BIG = ["sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "z-image-turbo"]


def job(model: str, **values: Any) -> Job:
    return resolve(
        GenerationRequest.parse({"prompt": "a fox", "model": model, "seed": 7} | values), MODELS, ""
    )


def seconds(model: str, size: GpuSize = "large", **values: Any) -> float:
    return drawing_seconds(job(model, **values), MODELS[model], size)


# How long.


@pytest.mark.parametrize("model", BIG)
def test_more_steps_pixels_images_or_guidance_never_take_less(model: str) -> None:
    plain = seconds(model, guidance=0)
    assert seconds(model, guidance=4) > plain
    assert seconds(model, guidance=0, steps=MODELS[model].limits.steps[1]) > plain
    assert seconds(model, guidance=0, images=2) > plain
    sides = [seconds(model, guidance=3, width=side, height=side) for side in (256, 512, 768, 1024)]
    assert sides == sorted(sides)
    assert seconds(model, "xlarge") < seconds(model, "large")


@pytest.mark.parametrize("size", ["large", "xlarge"])
@pytest.mark.parametrize("model", BIG)
def test_what_is_asked_is_what_is_needed_and_a_margin_and_never_above_ten_minutes(
    model: str, size: GpuSize
) -> None:
    spec = MODELS[model]
    held = bytes_of(models_to_hold([MODELS[name] for name in BIG], size))
    most = {"steps": spec.limits.steps[1], "guidance": spec.limits.guidance[1], "images": 4}
    for values in ({}, {"steps": 1, "width": 256, "height": 256}, most):
        asked = GpuSeconds(size, held, factor=1.5).asked(job(model, **values), spec) * 1.5
        needed = 2 + held / 5e9 + seconds(model, size, **values)
        assert needed <= asked <= MARGIN * needed + 1.5
        assert asked <= 600


def test_the_medium_part_with_skip_layer_guidance_takes_a_third_forward() -> None:
    without = MODELS["sd3.5-medium"].model_copy(update={"skip_layer_guidance": None})
    medium = job("sd3.5-medium")
    assert drawing_seconds(medium, without, "large") < seconds("sd3.5-medium")


def test_what_was_measured_corrects_the_table() -> None:
    spec, large = MODELS["sd3.5-large"], job("sd3.5-large")
    table = seconds("sd3.5-large")
    asks = GpuSeconds("large", held=40 * GB)
    before = asks.needed(large, spec)
    asks.started(3.0)
    asks.drawn(large, spec, 0.5 * table)
    assert asks.needed(large, spec) == pytest.approx(MARGIN * (3.0 + 0.5 * table))
    assert asks.needed(large, spec) < before
    asks.drawn(large, spec, table)
    assert asks.needed(large, spec) == pytest.approx(MARGIN * (3.0 + 0.75 * table))
    other = job("sd3.5-medium")
    assert asks.needed(other, MODELS["sd3.5-medium"]) == pytest.approx(
        MARGIN * (3.0 + seconds("sd3.5-medium"))
    )


def test_a_drawing_that_was_held_up_does_not_make_the_next_ask_for_everything() -> None:
    spec, large = MODELS["sd3.5-large"], job("sd3.5-large")
    asks = GpuSeconds("large", held=0)
    asks.drawn(large, spec, 10_000)
    assert asks.needed(large, spec) <= MARGIN * (2 + 3 * seconds("sd3.5-large"))


def test_the_documentation_says_what_a_first_picture_asks_of_the_quota() -> None:
    page = (ROOT / "docs" / "zerogpu.md").read_text(encoding="utf-8")
    names = dict(zip(BIG, ("Large", "Turbo", "Medium", "Z-Image Turbo"), strict=True))
    for size in ("large", "xlarge"):
        specs = models_to_hold([MODELS[name] for name in BIG], size)
        asks = GpuSeconds(size, bytes_of(specs))
        costs = ", ".join(f"{names[spec.id]} {asks.needed(job(spec.id), spec):.0f} s" for spec in specs)
        assert f"{costs} |" in page


# Which models.


def held(names: list[str], size: GpuSize) -> list[str]:
    return [spec.id for spec in models_to_hold([MODELS[name] for name in names], size)]


def test_large_holds_large_and_turbo_and_xlarge_holds_all() -> None:
    assert held(BIG, "large") == BIG[:2]
    assert held(BIG, "xlarge") == BIG


def test_shared_parts_count_once_and_all_three_variants_cross_the_line() -> None:
    assert bytes_of(MODELS[name] for name in BIG[:2]) / GB == pytest.approx(43.8, abs=0.1)
    assert bytes_of(MODELS[name] for name in BIG[:3]) > ROOM["large"]


def test_the_first_models_come_first_and_later_ones_fill_what_room_is_left() -> None:
    assert held(["z-image-turbo", "sd3.5-large", "sd3.5-medium"], "large") == [
        "z-image-turbo",
        "sd3.5-medium",
    ]


def test_a_model_of_the_owners_counts_with_what_its_entry_says_and_shares_its_familys_encoders() -> None:
    own = MODELS["sd3.5-medium"].model_copy(update={"id": "my-medium"})
    assert bytes_of([own]) / GB == pytest.approx(16.1, abs=0.1)
    assert bytes_of([MODELS["sd3.5-large"], own]) / GB == pytest.approx(32.4, abs=0.1)


def test_the_line_that_large_keeps_below_is_the_one_that_spaces_draws() -> None:
    cards = json.loads(files("spaces.zero").joinpath("configs.json").read_text())
    assert ROOM["large"] in [card["xlarge_threshold"] for card in cards]


def test_on_zerogpu_a_model_needs_no_gpu_of_its_own_but_its_visitors_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requirements, "ON_ZEROGPU", True)
    need = requirements.requirements(MODELS["z-image-turbo"])[0]
    assert need.met
    assert "daily quota" in need.words
    assert requirements.requirements(MODELS["sketch"])[0].words == "Runs on the CPU."
