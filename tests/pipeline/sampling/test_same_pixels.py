"""The same job gives the same pixels, whoever looks and whatever else is drawn; a picture's recipe gives
that picture again."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

from pipeline.engine import Engine
from pipeline.errors import InvalidRequest
from pipeline.recipe import read_recipe
from tests.support.tiny import SMALL, catalogue, draw, entry, hold, pixels, stand_in_gpu

PROMPT = "a red “äpfel”, 🍎 on\na table: Steps: 3"


def same(one: bytes, other: bytes) -> bool:
    return bool((pixels(one) == pixels(other)).all())


def test_the_same_job_gives_the_same_pixels_with_previews_read_or_not(engine: Engine) -> None:
    unread = draw(engine)
    read = list(engine.start(unread.job).events())[-1]
    assert same(unread.images[0], read.images[0])
    assert not same(unread.images[0], draw(engine, seed=8).images[0])


def test_what_ran_before_changes_nothing(engine: Engine) -> None:
    first = draw(engine)
    draw(engine, prompt="a rocket", width=144, guidance=1, steps=3, negative_prompt="blue", seed=99)
    stopped = engine.start(engine.check(SMALL | {"steps": 20}))
    stopped.stop()
    stopped.result()
    torch.manual_seed(123)
    assert same(first.images[0], draw(engine).images[0])


def test_queued_jobs_give_the_pixels_they_give_alone(engine: Engine) -> None:
    seeds = (1, 2, 3)
    alone = [draw(engine, seed=seed).images[0] for seed in seeds]
    drawings = [engine.start(engine.check(SMALL | {"seed": seed})) for seed in seeds]
    together = [drawing.result().images[0] for drawing in drawings]
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


@pytest.fixture
def two_devices(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    stand_in_gpu(monkeypatch)
    entries = entry(tiny_folder), entry(tiny_folder, "other", device=None)
    return Engine(catalogue(tmp_path, *entries))


def test_one_devices_line_does_not_hold_up_anothers(
    two_devices: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import SD3Transformer2DModel

    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    held = two_devices.start(two_devices.check({"prompt": "a", "model": "tiny"}))
    gate.wait()
    assert (
        two_devices.start(two_devices.check({"prompt": "a", "model": "other"})).result().phase == "finished"
    )
    assert held.latest.phase == "denoising"
    gate.open()
    assert held.result().phase == "finished"


def test_two_jobs_drawn_at_once_give_the_pixels_they_give_alone(two_devices: Engine) -> None:
    jobs = [
        two_devices.check({"prompt": prompt, "model": model, "steps": 12, "seed": 5})
        for model, prompt in (("tiny", "a fox"), ("other", "a red apple on a tree"))
    ]
    alone = [two_devices.start(job).result().images[0] for job in jobs]
    for _ in range(3):
        drawings = [two_devices.start(job) for job in jobs]
        for drawing, before in zip(drawings, alone, strict=True):
            assert same(drawing.result().images[0], before)


def test_image_k_of_several_is_the_picture_of_seed_plus_k(engine: Engine) -> None:
    several = draw(engine, images=3, seed=41, guidance=2.5)
    assert len(several.images) == 3
    for k, image in enumerate(several.images):
        assert same(image, draw(engine, seed=41 + k, guidance=2.5).images[0])


def test_a_pictures_recipe_draws_it_again(engine: Engine) -> None:
    event = draw(
        engine, prompt=PROMPT, images=2, seed=2**53 - 2, negative_prompt="blue, “grün”", guidance=2.75
    )
    for k, png in enumerate(event.images):
        request = read_recipe(io.BytesIO(png))
        assert request.seed == 2**53 - 2 + k
        assert request.images is None
        again = engine.start(engine.resolve(request.model_dump())).result()
        assert same(png, again.images[0])


def test_other_tools_read_the_recipe(engine: Engine) -> None:
    png = draw(engine, prompt="a red apple, on “grass”", negative_prompt="blue sky", guidance=2.5, width=144)
    found = ParserManager().parse(io.BytesIO(png.images[0]))
    assert found is not None
    assert [prompt.value for prompt in found.prompts] == ["a red apple, on “grass”"]
    assert [prompt.value for prompt in found.negative_prompts] == ["blue sky"]
    (sampler,) = found.samplers
    assert sampler.name == "Euler"
    settings = {key: str(value) for key, value in sampler.parameters.items()}
    assert (settings["steps"], settings["cfg_scale"], settings["seed"]) == ("4", "2.5", "7")
    assert [model.name for model in found.models] == ["sketch"]
    assert found.metadata["Size"] == "144x128"


def test_the_recipe_says_what_else_must_be_the_same(engine: Engine) -> None:
    with Image.open(io.BytesIO(draw(engine).images[0])) as image:
        made_with = json.loads(image.info["stepwise"])["made_with"]
    assert made_with["dtype"] == "float32"
    assert made_with["threads"] == torch.get_num_threads()
    assert made_with["torch"] == torch.__version__
    assert set(made_with) >= {"source", "revision", "device", "diffusers", "transformers"}


def test_a_picture_without_a_recipe_says_so() -> None:
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "PNG")
    with pytest.raises(InvalidRequest, match="carries no Stepwise recipe"):
        read_recipe(blank)


@pytest.mark.parametrize(
    "recipe",
    ["", "{", "[]", "null", "3", '"text"', "{}", '{"request": null}', '{"request": [["a", 1]]}', "[" * 10**5],
)
def test_a_damaged_recipe_says_so(recipe: str) -> None:
    doctored, info = io.BytesIO(), PngInfo()
    info.add_itxt("stepwise", recipe)
    Image.new("RGB", (8, 8)).save(doctored, "PNG", pnginfo=info)
    with pytest.raises(InvalidRequest, match="recipe is damaged"):
        read_recipe(doctored)


def test_a_recipe_with_a_bad_value_names_it() -> None:
    doctored, info = io.BytesIO(), PngInfo()
    info.add_itxt("stepwise", '{"request": {"prompt": "a fox", "steps": "many"}}')
    Image.new("RGB", (8, 8)).save(doctored, "PNG", pnginfo=info)
    with pytest.raises(InvalidRequest, match="steps must be a whole number"):
        read_recipe(doctored)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_a_file_that_is_no_picture_has_no_recipe(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="no picture"):
        read_recipe(io.BytesIO(data))
