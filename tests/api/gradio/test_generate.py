"""/generate streams every step and ends with finished PNGs; /models says what there is; both as the contract
has them, for gradio_client and for REST."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from PIL import Image

from pipeline.recipe import read_recipe
from tests.support.rest import TIMEOUT, call, post, stream
from tests.support.steps import Steps
from tests.support.tiny import SMALL, pixels

pytestmark = pytest.mark.sketch
INFO = {
    "job", "phase", "step", "steps", "eta", "seconds", "model", "prompt", "negative_prompt", "width",
    "height", "guidance", "seed", "warnings",
}  # fmt: skip
PHASES = ["queued", "downloading", "loading", "encoding", "denoising", "decoding", "finished"]


def fetched(picture: dict[str, Any]) -> bytes:
    answer = httpx.get(picture["image"]["url"], timeout=TIMEOUT)
    assert answer.status_code == 200
    return answer.content


def test_submit_yields_previews_step_by_step_and_then_the_finished_png(client: Client, steps: Steps) -> None:
    steps.hold(1)
    yields = []
    for images, info in client.submit("a red apple", model="sketch", seed=1, api_name="/generate"):
        yields.append((images, info))
        if images:
            steps.hold(info["step"] + 7)  # each of these is seen, the ones between may be
    phases = [info["phase"] for _, info in yields]
    assert phases[-1] == "finished"
    assert [PHASES.index(phase) for phase in phases] == sorted(PHASES.index(phase) for phase in phases)
    assert all(set(info) >= INFO for _, info in yields)
    assert "error" not in yields[-1][1]
    at = [info["step"] for _, info in yields]
    assert at == sorted(at)
    assert at[-1] == yields[-1][1]["steps"]
    shown = [(images, info) for images, info in yields if images and info["phase"] == "denoising"]
    assert len({Path(images[0]["image"]).read_bytes() for images, _ in shown}) >= 4
    assert all(images[0]["image"].endswith(".jpg") for images, _ in shown)
    # An estimate from the first step on. That it only shrinks is not promised: the machine may slow down.
    assert all(info["eta"] is not None and info["eta"] >= 0 for _, info in shown)
    (picture,) = yields[-1][0]
    with Image.open(picture["image"]) as image:
        assert (image.format, image.size) == ("PNG", (256, 256))
    assert yields[-1][1]["eta"] == 0
    json.dumps(yields, allow_nan=False)


def test_predict_returns_the_finished_pngs(client: Client) -> None:
    images, info = client.predict(**SMALL, images=2, api_name="/generate")
    assert info["phase"] == "finished"
    assert [Path(picture["image"]).name for picture in images] == ["7.png", "8.png"]
    for k, picture in enumerate(images):
        assert picture["caption"] == "a red apple"
        request = read_recipe(picture["image"])
        assert (request.seed, request.images) == (7 + k, None)


def test_the_same_seed_twice_gives_identical_pixels(client: Client) -> None:
    pictures = [
        Path(client.predict(**SMALL, api_name="/generate")[0][0]["image"]).read_bytes() for _ in range(2)
    ]
    assert (pixels(pictures[0]) == pixels(pictures[1])).all()


def test_a_pngs_recipe_sent_again_gives_identical_pixels(client: Client) -> None:
    values = SMALL | {"seed": None, "negative_prompt": "blue", "guidance": 2.5}
    (picture,), _ = client.predict(**values, api_name="/generate")
    request = read_recipe(picture["image"]).model_dump()
    (again,), _ = client.predict(**request, api_name="/generate")
    assert (pixels(Path(picture["image"]).read_bytes()) == pixels(Path(again["image"]).read_bytes())).all()


def test_named_rest_with_only_a_prompt_draws_with_the_defaults(server: str) -> None:
    answer = post(server, "generate", {"prompt": "a red apple"})
    assert answer.status_code == 200
    events = list(stream(server, "generate", answer.json()["event_id"]))
    assert {event for event, _ in events[:-1]} == {"generating"}
    assert events[-1][0] == "complete"
    images, info = events[-1][1]
    models = {model["id"]: model for (model) in call(server, "models", {})[0]}
    defaults = models[info["model"]]["defaults"]
    assert models[info["model"]]["default"]
    assert {name: info[name] for name in ("steps", "guidance", "width", "height")} == defaults
    assert info["phase"] == "finished"
    with Image.open(io.BytesIO(fetched(images[0]))) as image:
        assert image.format == "PNG"
        assert image.size == (info["width"], info["height"])
        assert "parameters" in image.info


def test_previews_can_be_fetched_over_rest_as_jpegs(server: str, steps: Steps) -> None:
    steps.hold(1)
    answer = post(server, "generate", SMALL)
    shown = []
    for _, data in stream(server, "generate", answer.json()["event_id"]):
        if data[0]:
            shown.append(data)
            steps.go_on()
    with Image.open(io.BytesIO(fetched(shown[0][0][0]))) as image:
        assert image.format == "JPEG"


def test_the_client_may_choose_the_jobs_id(client: Client) -> None:
    job = str(uuid.uuid4())
    _, info = client.predict(**SMALL, job=job.upper(), api_name="/generate")
    assert info["job"] == job


def test_a_snapped_size_and_a_cut_prompt_are_warned_about(client: Client) -> None:
    prompt = "a red apple on a blue background, " * 6 + "and the very last word"
    _, info = client.predict(**SMALL | {"width": 150, "prompt": prompt}, api_name="/generate")
    size, cut = info["warnings"]
    assert "144 × 128 instead of 150 × 128" in size
    assert cut.startswith("The prompt is too long")
    assert cut.endswith("and the very last word”")
    assert info["width"] == 144


def test_models_lists_each_model_with_its_bounds_and_whether_it_can_run(client: Client) -> None:
    models = client.predict(api_name="/models")
    keys = {"id", "name", "family", "license", "default", "available", "reason", "plan", "coming"}
    keys |= {"defaults", "limits"}
    assert all(set(model) == keys for model in models)
    ids = [model["id"] for model in models]
    assert ids == ["sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "z-image-turbo", "sketch"]
    assert [model["default"] for model in models].count(True) == 1
    for model in models:
        assert (model["reason"] is None) == model["available"]
        assert set(model["license"]) >= {"name", "url", "gated"}
        assert set(model["defaults"]) >= {"steps", "guidance", "width", "height"}
        for name in ("steps", "guidance", "pixels", "side", "images", "tokens"):
            low, high = model["limits"][name]
            assert low <= high
        assert model["limits"]["multiple"] >= 1


def test_the_api_page_lists_these_and_nothing_else(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/generate", "/job", "/jobs", "/models", "/stop"}
    parameters = endpoints["/generate"]["parameters"]
    assert [parameter["parameter_name"] for parameter in parameters] == [
        "prompt", "model", "negative_prompt", "width", "height", "steps", "guidance", "seed", "images", "job",
    ]  # fmt: skip
    assert not parameters[0]["parameter_has_default"]
    assert all(one["parameter_has_default"] and one["parameter_default"] is None for one in parameters[1:])
    assert [one["label"] for one in endpoints["/generate"]["returns"]] == ["images", "info"]
