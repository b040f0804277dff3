"""What a provider draws comes through the same API: /generate, /models and /stop know no difference but that
there are no previews. The provider is a stand-in; the app is real, with a token that nobody may see.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.rest import TIMEOUT, call, post, stream
from tests.support.services.provider import SECRET, Answer, Far

FOX = {"prompt": "a fox", "model": "far", "seed": 7}


def events(far: Far, **values: Any) -> Iterator[Any]:
    """(images, info) of each event of FOX with these values."""
    event = post(far.url, "generate", FOX | values).json()["event_id"]
    for _, data in stream(far.url, "generate", event):
        yield data


def test_generate_gives_the_providers_picture_with_its_recipe(far: Far) -> None:
    images, info = call(far.url, "generate", FOX | {"images": 2})
    assert (info["phase"], info["provider"], info["seed"]) == ("finished", "hf-inference", 7)
    assert [words for words in info["warnings"] if words.startswith("No previews")]
    pngs = [httpx.get(image["image"]["url"], timeout=TIMEOUT).content for image in images]
    recipes = [json.loads(Image.open(io.BytesIO(png)).info["stepwise"])["request"] for png in pngs]
    assert [recipe["seed"] for recipe in recipes] == [7, 8]
    assert [asked.parameters["seed"] for asked in far.provider.asked] == [7, 8]


def test_until_the_picture_has_come_there_is_none(far: Far) -> None:
    gate = far.provider.hold()
    running = events(far)
    images, info = next(event for event in running if event[1]["phase"] == "denoising")
    assert (images, info["step"], info["eta"]) == ([], 0, None)
    gate.open()
    images, info = list(running)[-1]
    assert (len(images), info["phase"]) == (1, "finished")


def test_two_are_drawn_at_the_same_time(far: Far) -> None:
    far.provider.hang()
    jobs = [str(uuid.uuid4()) for _ in range(2)]
    running = [events(far, job=job) for job in jobs]
    for one in running:
        assert next(info for _, info in one if info["phase"] != "queued")["phase"] == "denoising"
    for job, one in zip(jobs, running, strict=True):
        assert call(far.url, "stop", {"job": job})[0]["phase"] == "stopped"
        assert list(one)[-1][1]["phase"] == "stopped"


def test_stop_answers_though_the_provider_never_does(far: Far) -> None:
    far.provider.hang()
    job = str(uuid.uuid4())
    running = events(far, job=job)
    next(running)
    assert far.provider.reached.wait(TIMEOUT)
    (answer,) = call(far.url, "stop", {"job": job})
    assert (answer["job"], answer["phase"]) == (job, "stopped")
    images, info = list(running)[-1]
    assert (images, info["phase"]) == ([], "stopped")
    assert far.provider.gone.wait(TIMEOUT)


@pytest.mark.parametrize(
    "status, words", [(401, "HF_TOKEN"), (402, "settings/billing"), (429, "Try again"), (503, "loaded")]
)
def test_a_refusal_comes_in_words_and_the_token_never_comes(far: Far, status: int, words: str) -> None:
    body = json.dumps({"error": f"not with {SECRET}"}).encode()
    far.provider.answer = lambda asked: Answer(body, status, {"X-Error-Message": SECRET})
    images, info = call(far.url, "generate", FOX)
    assert (images, info["phase"]) == ([], "failed")
    assert words in info["error"]
    assert SECRET not in json.dumps(info)
    log = far.log.read_text()
    assert info["error"] in log
    assert SECRET not in log


def test_neither_the_page_nor_the_models_tell_the_token(far: Far) -> None:
    (models,) = call(far.url, "models", {})
    assert [(model["id"], model["available"]) for model in models] == [("far", True), ("auto", True)]
    page = httpx.get(far.url, timeout=TIMEOUT).text
    config = httpx.get(f"{far.url}/config", timeout=TIMEOUT).text
    assert "Drawn far away" in page + config
    assert SECRET not in page + config + json.dumps(models)
