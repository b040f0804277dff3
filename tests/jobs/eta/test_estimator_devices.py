"""Each device, profile and set of patches has estimates of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.eta.estimator import Estimator
from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.weights.patches import Patch, Patches
from pipeline.weights.profile import Profile
from tests.jobs.eta.drawings import CATALOGUE, drawing, estimator, job, shown
from tests.support.tiny import draw


def two_devices(path: Path | None = None) -> Estimator:
    """Sketch is drawn on the CPU, all else on the GPU."""
    return Estimator(CATALOGUE, lambda model: "cpu: slow" if model == "sketch" else "cuda: fast", path)


def test_what_makes_one_device_slow_says_nothing_of_another() -> None:
    one, large, small = two_devices(), job(), job(model="sketch", width=128, height=128, steps=4)
    for _ in range(5):
        shown(one, drawing(large, step=0.1))
        shown(one, drawing(small, step=0.1))
    before = one.seconds(large, loaded=True)
    for _ in range(5):
        shown(one, drawing(small, step=0.4, decode=2.0))
    assert one.seconds(large, loaded=True) == before
    slower = one.seconds(small, loaded=True)
    assert slower is not None and slower > 3 * 0.4


def test_each_device_of_a_server_is_kept_and_what_an_older_one_kept_of_all_is_learned_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, large, small = tmp_path / "pace.json", job(), job(model="sketch", width=128, height=128, steps=4)
    path.write_text('{"a GPU": {"loads": [4.0], "models": {"sd3.5-large": {"plain": {"64": [9.0]}}}}}')
    one = two_devices(path)
    assert one.seconds(large, loaded=True) is None
    for asked in (large, small):
        shown(one, drawing(asked))
    one.save()
    assert sorted(json.loads(path.read_text())) == ["cpu: slow", "cuda: fast"]
    for asked in (large, small):
        assert two_devices(path).seconds(asked, True) == one.seconds(asked, True)
    assert caplog.text == ""


def test_a_drawing_that_another_device_did_teaches_that_ones_pace_alone(tmp_path: Path) -> None:
    """Workers of one line may have different cards: who drew is what the events say."""
    path, asked = tmp_path / "pace.json", job()
    one = estimator(path, "a fast one")
    for device, step in (("cuda: a fast one", 0.1), ("cuda: a slow one", 1.0)):
        shown(one, [replace(event, device=device) for event in drawing(asked, step=step)])
    assert one.seconds(asked, loaded=True) == pytest.approx(0.2 + 28 * 0.1 + 0.5)
    begun = Event(asked, "denoising", device="cuda: a slow one")
    assert one.remaining(begun) == pytest.approx(28 * 1.0 + 0.5)
    assert one.remaining(replace(begun, device="")) == pytest.approx(28 * 0.1 + 0.5)
    one.save()
    assert sorted(json.loads(path.read_text())) == ["cuda: a fast one", "cuda: a slow one"]
    assert estimator(path, "a slow one").seconds(asked, loaded=True) == pytest.approx(0.2 + 28 * 1.0 + 0.5)


def test_a_drawing_says_on_which_device_it_was_drawn_as_the_engine_calls_it(engine: Engine) -> None:
    assert draw(engine, steps=1).device == engine.device("sketch")


# Several profiles and patches of one model.

FAST = Profile("fast")
PATCHED = Patches((Patch("transformer", "ab12 at 0.8"),))


@pytest.mark.parametrize(
    "name, other",
    [("profile_of", FAST), ("patches_of", PATCHED)],
    ids=["another profile", "patches"],
)
def test_another_profile_or_set_of_patches_has_an_estimate_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: Any
) -> None:
    path, asked = tmp_path / "pace.json", job()
    one = estimator(path)
    shown(one, drawing(asked, step=0.2))
    usual = one.seconds(asked, loaded=True)
    with monkeypatch.context() as patch:
        patch.setattr(f"jobs.eta.estimator.{name}", lambda _: other)
        assert one.seconds(asked, loaded=True) is None
        shown(one, drawing(asked, step=0.1))
        fast = one.seconds(asked, loaded=True)
        one.save()
        assert estimator(path).seconds(asked, loaded=True) == fast
    assert estimator(path).seconds(asked, loaded=True) == one.seconds(asked, loaded=True) == usual
    assert fast == pytest.approx(0.2 + 2.8 + 0.5)


def test_what_a_server_without_profiles_kept_is_stocks(tmp_path: Path) -> None:
    path = tmp_path / "pace.json"
    path.write_text('{"cuda: a GPU": {"models": {"sd3.5-large": {"guided": {"1048576": [0.1]}}}}}')
    assert estimator(path).seconds(job(), loaded=True) == pytest.approx(2.8)


def test_an_engine_names_its_devices_by_line(engine: Engine) -> None:
    names = {model["id"]: engine.device(model["id"]) for model in engine.models()}
    assert all(name.startswith(f"{engine.line(model)}: ") for model, name in names.items())
