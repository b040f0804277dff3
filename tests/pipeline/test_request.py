"""What a request becomes: the model's defaults where it says nothing, sizes snapped with a warning, and
refusals that name the parameter, its value and its bound, wherever the job came from."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine import Engine
from pipeline.errors import InvalidRequest, ModelUnavailable, StepwiseError, UnknownModel
from pipeline.request import MAX_SEED
from tests.support.tiny import SMALL, draw, pixels

SKETCHED = {"prompt": "a red apple", "model": "sketch"}


def test_a_prompt_alone_takes_the_models_defaults(engine: Engine) -> None:
    job, defaults = engine.check({"prompt": " a red apple "}), engine.catalogue["sketch"].defaults
    assert (job.model, job.prompt, job.negative_prompt, job.images) == ("sketch", "a red apple", "", 1)
    assert (job.steps, job.guidance) == (defaults.steps, defaults.guidance)
    assert (job.width, job.height) == (defaults.width, defaults.height)
    assert 0 <= job.seed < 2**32
    assert job.warnings == ()


def test_nulls_mean_the_models_defaults(engine: Engine) -> None:
    nulls = dict.fromkeys(("model", "width", "height", "steps", "guidance", "seed", "images", "job"))
    job = engine.check({"prompt": "a", "negative_prompt": None, **nulls})
    assert job.steps == engine.catalogue["sketch"].defaults.steps


@pytest.mark.parametrize("seed", [None, -1])
def test_a_random_seed_is_another_every_time(engine: Engine, seed: int | None) -> None:
    assert len({engine.check(SKETCHED | {"seed": seed}).seed for _ in range(5)}) == 5


def test_seed_zero_is_a_seed(engine: Engine) -> None:
    assert engine.check(SKETCHED | {"seed": 0}).seed == 0


@pytest.mark.parametrize("asked, drawn", [(130, 128), (201, 208), (263, 256), (265, 272), (511, 512)])
def test_a_size_is_snapped_to_the_models_multiple_with_a_warning(
    engine: Engine, asked: int, drawn: int
) -> None:
    job = engine.check(SKETCHED | {"width": asked, "height": 128})
    assert (job.width, job.height) == (drawn, 128)
    assert job.warnings == (
        f"Drawn at {drawn} × 128 instead of {asked} × 128: Sketch draws multiples of 16.",
    )


def test_a_snapped_size_is_the_size_of_the_picture(engine: Engine) -> None:
    event = draw(engine, width=150, steps=1)
    assert pixels(event.images[0]).shape == (128, 144, 3)
    assert len(event.warnings) == 1


@pytest.mark.parametrize(
    "values, words",
    [
        ({"width": 64}, "width must be from 128 to 512 for Sketch; got 64."),
        ({"height": 528}, "height must be from 128 to 512 for Sketch; got 528."),
        (
            {"model": "sd3.5-large", "width": 1536, "height": 1536},
            "1536 × 1536 = 2,359,296 pixels; Stable Diffusion 3.5 Large draws from 65,536 to 1,048,576",
        ),
        ({"width": 512, "height": 512, "images": 4}, "512 × 512 × 4 = 1,048,576"),
        ({"seed": MAX_SEED, "images": 2}, "leaves no room for 2 images"),
        ({"steps": 61}, "steps must be from 1 to 60 for Sketch; got 61."),
        ({"guidance": 10.5}, "guidance must be from 0 to 10 for Sketch; got 10.5."),
        ({"images": 0}, "images must be from 1 to 4 for Sketch; got 0."),
    ],
)
def test_what_is_past_the_models_limits_is_refused(
    engine: Engine, values: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        engine.check(SKETCHED | values)
    assert words in str(refusal.value)


def test_an_unknown_model_is_answered_with_the_known_ones(engine: Engine) -> None:
    with pytest.raises(UnknownModel) as refusal:
        engine.check({"prompt": "a", "model": "dall-e"})
    for spec in engine.catalogue:
        assert spec.id in str(refusal.value)


@pytest.mark.parametrize("model", ["sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "z-image-turbo"])
def test_an_unavailable_model_is_refused_with_its_reason(engine: Engine, model: str) -> None:
    listed = next(one for one in engine.models() if one["id"] == model)
    if listed["available"]:
        pytest.skip(f"{model} can run on this machine")
    job = engine.resolve({"prompt": "a", "model": model})
    with pytest.raises(ModelUnavailable) as refusal:
        engine.start(job)
    assert listed["reason"] in str(refusal.value)
    assert "GPU" in listed["reason"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 10**9}, {"steps": -3}, {"width": 10**6}, {"width": 130}, {"guidance": float("nan")},
        {"guidance": float("inf")}, {"seed": 2**64}, {"prompt": ""}, {"prompt": "\x00"}, {"prompt": "\ud800"},
        {"model": "dall-e"}, {"images": 400}, {"id": "not-a-uuid"}, {"prompt": None}, {"steps": "many"},
    ],
)  # fmt: skip
def test_a_job_made_by_hand_is_checked_like_any_other(engine: Engine, changes: dict[str, Any]) -> None:
    """As when it comes from a database or another process: bad ones never reach the pipeline."""
    job = engine.check(SMALL).model_copy(update=changes)
    if changes == {"width": 130}:  # snapped, not refused
        drawing = engine.start(job)
        assert drawing.job.width == 128
        drawing.stop()
        drawing.result()
        return
    with pytest.raises(StepwiseError):
        engine.start(job)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(
        ["sketch", "z-image-turbo", 128, 256, 28, 3.5, "\ud800", 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = (
    "prompt", "model", "negative_prompt", "width", "height", "steps", "guidance", "seed", "images", "job",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), ANYTHING, max_size=6), st.booleans())
@settings(max_examples=400, deadline=None)
def test_whatever_is_asked_is_refused_in_words_or_within_the_limits(
    engine: Engine, values: dict[str, Any], with_prompt: bool
) -> None:
    if with_prompt:
        values = values | {"prompt": "a red apple"}
    try:
        job = engine.check(values)
    except InvalidRequest as refusal:
        assert refusal.problems
        for name, words in refusal.problems.items():
            words.encode("utf-8")
            assert words.endswith(".")
            assert name in words or "×" in words
            assert not any(python in words for python in ("Value error", "Input should be", "Traceback"))
        return
    except ModelUnavailable as refusal:
        assert "can't run here" in str(refusal)
        return
    limits = engine.catalogue[job.model].limits
    for name, value in (
        ("steps", job.steps), ("guidance", job.guidance), ("images", job.images),
        ("side", job.width), ("side", job.height), ("pixels", job.width * job.height),
    ):  # fmt: skip
        low, high = getattr(limits, name)
        assert low <= value <= high
    assert job.width % limits.multiple == job.height % limits.multiple == 0
    assert job.width * job.height * job.images <= limits.total_pixels
    assert 0 <= job.seed <= job.seed + job.images - 1 <= MAX_SEED
    assert job.prompt.strip() == job.prompt != ""
    job.model_dump_json().encode("utf-8")
