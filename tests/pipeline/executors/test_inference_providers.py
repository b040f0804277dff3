"""A model with `backend: inference` is drawn by a provider, through the same engine: with the owner's token,
without previews, and as responsive to a stop as any other. What is out there is a stand-in.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from huggingface_hub import constants
from PIL import Image

from pipeline.catalog.catalogue import read_catalogue
from pipeline.catalog.spec import Provider
from pipeline.engine import Engine
from pipeline.errors import ModelUnavailable
from pipeline.events import Event
from pipeline.executors.inference_providers import AT_ONCE, MOST_PIXELS
from tests.pipeline.conftest import FOX
from tests.support.services.provider import SECRET, STORE, Answer, FakeProvider, as_asked, picture
from tests.support.tiny import ROOT, catalogue, entry, pixels


def engine(provider: FakeProvider, folder: Path) -> Engine:
    return Engine(catalogue(folder, provider.entry()))


def recipe(png: bytes) -> dict[str, Any]:
    return json.loads(Image.open(io.BytesIO(png)).info["stepwise"])


def test_a_provider_draws_what_was_asked_for_with_the_owners_token(
    draw: Callable[..., Event], provider: FakeProvider
) -> None:
    event = draw(steps=12, guidance=2.5, negative_prompt="a dog", width=96, height=64)
    assert (event.phase, event.step, event.error) == ("finished", 12, None)
    (asked,) = provider.asked
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.path == f"/hf-inference/models/{provider.model}"
    assert asked.body == {
        "inputs": "a fox",
        "parameters": {
            "negative_prompt": "a dog",
            "width": 96,
            "height": 64,
            "num_inference_steps": 12,
            "guidance_scale": 2.5,
            "seed": 7,
        },
    }
    (png,) = event.images
    assert pixels(png).shape == (64, 96, 3)
    assert set(pixels(png)[..., 0].flat) == {7}
    assert recipe(png)["request"] == {"model": "far"} | {
        key: getattr(event.job, key)
        for key in ("prompt", "negative_prompt", "width", "height", "steps", "guidance", "seed")
    }


def test_its_recipe_names_the_provider_and_claims_no_sampler(draw: Callable[..., Event]) -> None:
    (png,) = draw().images
    made_with = recipe(png)["made_with"]
    assert made_with["provider"] == "hf-inference"
    assert "/" in made_with["source"]
    assert "Sampler" not in Image.open(io.BytesIO(png)).info["parameters"]


def test_several_images_are_asked_for_one_by_one_each_with_its_own_seed(
    draw: Callable[..., Event], provider: FakeProvider
) -> None:
    event = draw(images=3)
    assert [asked.parameters["seed"] for asked in provider.asked] == [7, 8, 9]
    assert [recipe(png)["request"]["seed"] for png in event.images] == [7, 8, 9]
    assert [int(pixels(png)[0, 0, 0]) for png in event.images] == [7, 8, 9]
    assert len(event.previews) == 3  # of the finished pictures, for the history


def test_no_step_is_claimed_while_nobody_can_see_one(provider: FakeProvider, tmp_path: Path) -> None:
    gate = provider.hold()
    here = engine(provider, tmp_path)
    drawing = here.start(here.check(FOX))
    gate.wait()
    seen = drawing.latest
    assert (seen.phase, seen.step, seen.eta, seen.previews) == ("denoising", 0, None, ())
    assert seen.info()["provider"] == "hf-inference"
    assert any("No previews" in words and "hf-inference" in words for words in seen.warnings)
    gate.open()
    assert drawing.result().phase == "finished"


def test_a_picture_of_another_size_is_kept_and_said(
    draw: Callable[..., Event], provider: FakeProvider
) -> None:
    provider.answer = lambda asked: Answer(picture(128, 80))
    event = draw(images=2)
    assert event.phase == "finished"
    assert pixels(event.images[0]).shape == (80, 128, 3)
    assert sum("128 × 80 instead of 64 × 48" in words for words in event.warnings) == 1  # not once an image


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_whatever_format_a_provider_sends_a_png_comes_out(
    draw: Callable[..., Event], provider: FakeProvider, format: str
) -> None:
    provider.answer = lambda asked: Answer(picture(format=format))
    (png,) = draw().images
    assert Image.open(io.BytesIO(png)).format == "PNG"


def test_with_auto_the_first_provider_that_serves_the_model_draws(
    draw: Callable[..., Event], provider: FakeProvider
) -> None:
    """nscale's answer is a picture inside JSON; huggingface_hub knows each provider's."""
    provider.serving = ["nscale", "hf-inference"]
    inside = base64.b64encode(picture()).decode()
    provider.answer = lambda asked: Answer(json.dumps({"data": [{"b64_json": inside}]}).encode())
    assert draw({"provider": "auto"}).phase == "finished"
    assert provider.asked[0].path == "/nscale/v1/images/generations"
    assert provider.asked[0].body["size"] == "64x48"


def test_a_picture_that_the_provider_keeps_elsewhere_is_fetched_from_there(
    draw: Callable[..., Event], provider: FakeProvider
) -> None:
    provider.serving = ["fal-ai"]
    provider.files["/fox.png"] = picture(shade=99)
    where = {"images": [{"url": f"https://{STORE}/fox.png"}]}
    provider.answer = lambda asked: Answer(json.dumps(where).encode())
    event = draw({"provider": "fal-ai"})
    assert pixels(event.images[0])[0, 0, 0] == 99


# Stopping and waiting.


def test_stopping_ends_the_drawing_at_once_and_hangs_up_on_the_provider(
    provider: FakeProvider, tmp_path: Path
) -> None:
    provider.hang()
    here = engine(provider, tmp_path)
    drawing = here.start(here.check(FOX))
    assert provider.reached.wait(60)
    drawing.stop()
    event = drawing.result()  # though no answer ever comes
    assert (event.phase, event.images, event.error) == ("stopped", (), None)
    assert provider.gone.wait(60)
    provider.answer = as_asked
    assert here.start(here.check(FOX)).result().phase == "finished"


def test_stopping_at_the_second_image_keeps_the_first(provider: FakeProvider, tmp_path: Path) -> None:
    gate = provider.hold(call=2)
    here = engine(provider, tmp_path)
    drawing = here.start(here.check(FOX | {"images": 3}))
    gate.wait()
    drawing.stop()
    event = drawing.result()
    gate.open()
    assert event.phase == "stopped"
    assert [recipe(png)["request"]["seed"] for png in event.images] == [7]
    assert len(provider.asked) == 2


def test_a_stop_while_the_hub_is_asked_never_reaches_the_provider(
    provider: FakeProvider, tmp_path: Path
) -> None:
    """huggingface_hub asks it without a way to interrupt: the drawing leaves, the question ends by itself."""

    def slow() -> Answer:
        provider.reached.set()
        assert provider.gone.wait(60)
        return Answer(json.dumps({"id": provider.model, "pipeline_tag": "text-to-image"}).encode())

    provider.hub = slow
    here = engine(provider, tmp_path)
    drawing = here.start(here.check(FOX))
    assert provider.reached.wait(60)
    name = f"call for {drawing.job.short_id}"
    (call,) = (thread for thread in threading.enumerate() if thread.name == name)
    drawing.stop()
    assert drawing.result().phase == "stopped"
    assert call.is_alive()
    provider.gone.set()
    call.join(60)
    assert not call.is_alive()
    assert provider.asked == []


def test_several_are_drawn_at_once_and_the_others_wait_in_their_order(
    provider: FakeProvider, tmp_path: Path
) -> None:
    provider.hang()
    here = engine(provider, tmp_path)
    drawings = [here.start(here.check(FOX)) for _ in range(AT_ONCE + 2)]
    for drawing in drawings[:AT_ONCE]:
        assert next(event for event in drawing.events() if event.phase != "queued").phase == "denoising"
    assert {drawing.latest.phase for drawing in drawings[AT_ONCE:]} == {"queued"}
    drawings[1].stop()  # any of those at the front makes room
    events = drawings[AT_ONCE].events()
    assert next(event for event in events if event.phase != "queued").phase == "denoising"
    assert drawings[AT_ONCE + 1].latest.phase == "queued"
    for drawing in drawings:
        drawing.stop()
    assert {drawing.result().phase for drawing in drawings} == {"stopped"}


def test_a_stop_while_it_waits_never_reaches_the_provider(provider: FakeProvider, tmp_path: Path) -> None:
    gate = provider.hold()
    here = engine(provider, tmp_path)
    busy = [here.start(here.check(FOX)) for _ in range(AT_ONCE)]
    waiting = here.start(here.check(FOX | {"prompt": "never"}))
    waiting.stop()
    assert waiting.result().phase == "stopped"
    gate.open()
    assert {drawing.result().phase for drawing in busy} == {"finished"}
    assert "never" not in [asked.body["inputs"] for asked in provider.asked]


# Whether it can run here at all.


def test_without_a_token_it_is_listed_with_the_reason_and_not_the_default(
    provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("pipeline.weights.requirements.get_token", lambda: None)
    here = Engine(catalogue(tmp_path, provider.entry(), entry(tiny_folder)))
    far, tiny = here.models()
    assert (far["available"], far["default"], tiny["default"]) == (False, False, True)
    assert "Needs HF_TOKEN" in far["reason"]
    assert "https://huggingface.co/settings/tokens/new" in far["reason"]
    assert "GPU" not in far["reason"]
    with pytest.raises(ModelUnavailable, match="HF_TOKEN"):
        here.check(FOX)


def test_a_token_that_is_not_hugging_faces_is_never_sent_anywhere(
    provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub would take it for the provider's own key and hand it over."""
    monkeypatch.setenv("HF_TOKEN", "sk-somebody-elses")
    here = engine(provider, tmp_path)
    with pytest.raises(ModelUnavailable, match="no token of Hugging Face") as refusal:
        here.check(FOX)
    assert "sk-somebody-elses" not in str(refusal.value)


def test_offline_it_says_so(provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
        engine(provider, tmp_path).check(FOX)


def test_the_repositorys_own_models_spend_nobodys_money() -> None:
    assert {spec.backend for spec in read_catalogue(ROOT / "models.yaml")} == {"local"}


def test_asking_a_provider_needs_no_torch() -> None:
    code = "import pipeline.executors.inference_providers, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_the_entry_in_the_documentation_is_one(provider: FakeProvider, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "models.yaml"
    path.write_text((ROOT / "models.yaml").read_text(encoding="utf-8") + shown, encoding="utf-8")
    specs = list(read_catalogue(path))
    assert specs[-1].backend == "inference"
    (listed,) = (one for one in Engine(read_catalogue(path)).models() if one["id"] == specs[-1].id)
    assert listed["available"]
    providers = set(get_args(Provider)) - {"auto"}
    assert all(f"`{one}`" in page for one in providers)
    assert f"{AT_ONCE} drawings" in page.replace("four", "4")
    assert f"{MOST_PIXELS // 10**6} million pixels" in page
