"""OpenAI's official Python client, unmodified, draws: only its base URL is changed."""

from __future__ import annotations

import asyncio
import base64
import io
import subprocess
import uuid
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent
from PIL import Image

from api.openai.request import ImageRequest
from jobs.queue import Queue
from pipeline.engine import Engine
from pipeline.recipe import read_recipe
from tests.api.conftest import KEYS, Keyed
from tests.api.openai.openai_server import EXTRAS, SMALL, TINY, client, openai_server, post
from tests.support.rest import TIMEOUT, call
from tests.support.steps import Steps
from tests.support.tiny import SMALL as OURS
from tests.support.tiny import pixels


def picture(b64_json: str | None) -> bytes:
    assert b64_json is not None
    return base64.b64decode(b64_json, validate=True)


def format_of(file: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(file)) as image:
        return image.format, image.size


@pytest.mark.sketch
def test_a_picture_is_the_one_that_generate_draws_recipe_included(server: str) -> None:
    answer = client(server).images.generate(**SMALL, extra_body=EXTRAS)
    (image,) = answer.data or []
    png = picture(image.b64_json)
    images, _ = call(server, "generate", OURS)
    ours = httpx.get(images[0]["image"]["url"], timeout=TIMEOUT).content
    assert np.array_equal(pixels(png), pixels(ours))
    request = read_recipe(io.BytesIO(png))
    assert (request.prompt, request.steps, request.seed) == ("a red apple", 4, 7)
    assert image.url is None
    assert (answer.size, answer.output_format, answer.background) == ("128x128", "png", "opaque")


def test_the_answer_says_how_it_was_drawn(server: str) -> None:
    job = str(uuid.uuid4())
    extras = EXTRAS | {"guidance": 2, "negative_prompt": "text", "job": job}
    answer: Any = client(server).images.generate(**SMALL, n=2, user="somebody", extra_body=extras)
    drawn = (answer.model, answer.steps, answer.guidance, answer.negative_prompt, answer.seed, answer.job)
    assert drawn == ("sketch", 4, 2, "text", 7, job)
    assert [image.seed for image in answer.data] == [7, 8]
    assert answer.warnings == []
    assert answer.usage.total_tokens == 0
    assert answer.usage.input_tokens_details.text_tokens == 0
    assert answer._request_id == job


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_a_picture_comes_as_jpeg_or_webp_of_the_quality_asked_for(server: str, kind: Any) -> None:
    sizes = []
    for compression in (100, 20, 0):
        answer = client(server).images.generate(
            **SMALL, output_format=kind, output_compression=compression, extra_body=EXTRAS
        )
        file = picture((answer.data or [])[0].b64_json)
        assert format_of(file) == (kind.upper(), (128, 128))
        assert answer.output_format == kind
        sizes.append(len(file))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_a_picture_comes_as_an_address_that_serves_the_png(server: str) -> None:
    answer = client(server).images.generate(**SMALL, response_format="url", extra_body=EXTRAS)
    (image,) = answer.data or []
    assert image.b64_json is None
    assert image.url is not None
    assert image.url.startswith(f"{server}/")
    served = httpx.get(image.url, timeout=TIMEOUT)
    assert served.headers["content-type"] == "image/png"
    assert read_recipe(io.BytesIO(served.content)).seed == 7


def test_an_address_is_the_one_that_a_named_proxy_is_known_by(keyed: Keyed) -> None:
    body = '{"prompt": "a fox", "size": "64x64", "steps": 2, "response_format": "url"}'
    forwarded = {"x_forwarded_host": "draw.example.org", "x_forwarded_proto": "https"}
    proxied = post(keyed.url, body, authorization=f"Bearer {KEYS[0]}", **forwarded)
    url = proxied.json()["data"][0]["url"]
    assert url.startswith("https://draw.example.org/gradio_api/file=")
    served = httpx.get(url.replace("https://draw.example.org", keyed.url), timeout=TIMEOUT)
    assert served.content[:4] == b"\x89PNG"


def test_quality_is_how_many_steps_are_drawn_where_steps_doesnt_say_it(server: str) -> None:
    answer: Any = client(server).images.generate(**SMALL, quality="low")
    assert (answer.steps, answer.quality) == (14, "low")
    answer = client(server).images.generate(**SMALL, quality="hd", extra_body={"steps": 2})
    assert (answer.steps, answer.quality) == (2, "high")


@pytest.mark.parametrize(
    "quality, model, steps",
    [
        (None, "sketch", 28),
        ("auto", "sketch", 28),
        ("standard", "sketch", 28),
        ("medium", "sketch", 28),
        ("low", "sketch", 14),
        ("high", "sketch", 42),
        ("hd", "sketch", 42),
        ("max", "sd3.5-medium", 60),
        ("xhigh", "sd3.5-large-turbo", 6),
        ("low", "sd3.5-large-turbo", 2),
    ],
)
def test_a_quality_is_a_share_of_the_models_own_steps(
    engine: Engine, quality: Any, model: str, steps: int
) -> None:
    spec = engine.catalogue[model]
    assert ImageRequest(prompt="a fox", quality=quality).values(spec)["steps"] == steps
    bounded = spec.model_copy(update={"limits": spec.limits.model_copy(update={"steps": (5, 40)})})
    assert 5 <= ImageRequest(prompt="a fox", quality=quality).values(bounded)["steps"] <= 40


def test_a_size_that_is_snapped_says_so_and_auto_is_the_models(server: str) -> None:
    answer: Any = client(server).images.generate(prompt="a fox", size="150x128", extra_body={"steps": 1})
    assert answer.size == "144x128"
    assert "144 × 128 instead of 150 × 128" in answer.warnings[0]
    answer = client(server).images.generate(prompt="a fox", size="auto", extra_body={"steps": 1})
    assert answer.size == "256x256"


OPENAIS = ["gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2.5-flare", "chatgpt-image-latest",
           "dall-e-2", "dall-e-3", "dalle-3", "openai/gpt-image-1"]  # fmt: skip


def test_a_model_of_openais_is_the_default_one_and_the_answer_says_so(tiny_queue: Queue) -> None:
    with openai_server(tiny_queue) as server:
        for model in OPENAIS:
            words = f'Drawn with Tiny (tiny): "{model}" is a model of OpenAI\'s.'
            answer: Any = client(server).images.generate(**TINY | {"model": model})
            assert (answer.model, answer.warnings) == ("tiny", [words])
        *_, last = client(server).images.generate(**TINY | {"model": model}, stream=True)
        assert (last.model, last.warnings) == ("tiny", [words])  # type: ignore[union-attr]


def test_what_has_no_effect_is_accepted_and_null_is_the_default(server: str) -> None:
    nothing = {"model": None, "n": None, "size": None, "quality": None, "seed": None, "stream": None}
    answer: Any = client(server).images.generate(
        prompt="a fox",
        moderation="low",
        style="natural",
        safety_identifier="x",
        background="opaque",
        extra_body=nothing | {"steps": 1},
    )
    assert (answer.model, answer.size) == ("sketch", "256x256")


def test_a_stream_has_the_first_preview_and_more_up_to_three_and_then_the_same_picture(
    server: str, steps: Steps
) -> None:
    steps.hold(1)
    events: list[Any] = []
    for event in client(server).images.generate(
        prompt="a red apple", stream=True, partial_images=3, extra_body={"seed": 7, "steps": 20}
    ):
        events.append(event)
        steps.go_on()
    *partials, completed = events
    assert all(isinstance(event, ImageGenPartialImageEvent) for event in partials)
    assert isinstance(completed, ImageGenCompletedEvent)
    assert 1 <= len(partials) <= 3
    assert [event.partial_image_index for event in partials] == list(range(len(partials)))
    assert [event.step for event in partials] == sorted({event.step for event in partials})
    for event in partials:
        assert format_of(picture(event.b64_json)) == ("JPEG", (256, 256))
        assert (event.output_format, event.size, event.background) == ("jpeg", "256x256", "opaque")
    answer: Any = client(server).images.generate(prompt="a red apple", extra_body={"seed": 7, "steps": 20})
    assert picture(completed.b64_json) == picture(answer.data[0].b64_json)
    assert (completed.output_format, completed.usage.total_tokens) == ("png", 0)
    extra: Any = completed
    assert (extra.seed, extra.steps, extra.model) == (7, 20, "sketch")


def test_a_stream_of_two_pictures_completes_each_with_its_own_seed(server: str) -> None:
    events: list[Any] = list(
        client(server).images.generate(
            **SMALL, n=2, stream=True, partial_images=1, output_format="jpeg", extra_body=EXTRAS
        )
    )
    completed = [event for event in events if event.type == "image_generation.completed"]
    assert [(event.image_index, event.seed) for event in completed] == [(0, 7), (1, 8)]
    assert format_of(picture(completed[1].b64_json))[0] == "JPEG"
    for event in events[: events.index(completed[0])]:
        assert event.image_index == 0


def test_a_stream_without_partial_images_is_the_picture_alone(server: str) -> None:
    events = list(client(server).images.generate(**SMALL, stream=True, extra_body=EXTRAS))
    assert [event.type for event in events] == ["image_generation.completed"]


@pytest.mark.sketch
def test_the_asynchronous_client_draws_and_streams(server: str) -> None:
    async def draw() -> tuple[Any, list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none", timeout=TIMEOUT) as client:
            answer = await client.images.generate(**SMALL, extra_body=EXTRAS)
            stream = await client.images.generate(**SMALL, stream=True, partial_images=1, extra_body=EXTRAS)
            return answer, [event.type async for event in stream]

    answer, types = asyncio.run(draw())
    assert picture(answer.data[0].b64_json)[:4] == b"\x89PNG"
    assert types[-1] == "image_generation.completed"


def test_models_are_listed_those_that_can_run_first_and_found_one_by_one(server: str) -> None:
    models: list[Any] = client(server).models.list().data
    assert [model.id for model in models] == [
        "sketch", "sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "z-image-turbo",
    ]  # fmt: skip
    assert [model.available for model in models] == [True, False, False, False, False]
    assert (models[0].object, models[0].owned_by, models[0].default) == ("model", "stepwise", True)
    assert models[1].owned_by == "stabilityai"
    assert "GPU" in models[1].reason
    assert models[0].limits["steps"] == [1, 60]
    one: Any = client(server).models.retrieve("sd3.5-large-turbo")
    assert (one.id, one.defaults["steps"]) == ("sd3.5-large-turbo", 4)


def test_each_event_arrives_when_it_happens(server: str, steps: Steps) -> None:
    """The drawing waits at its first step until curl has printed that preview: nothing on the way holds the
    stream back."""
    job = str(uuid.uuid4())
    steps.hold(1)
    body = f'{{"prompt": "a fox", "size": "128x128", "steps": 60, "stream": true, "job": "{job}", ' + (
        '"partial_images": 60, "n": 2}'
    )
    command = ["curl", "-sN", f"{server}/v1/images/generations", "-d", body, "--max-time", f"{TIMEOUT}"]
    headers = ["-H", "Content-Type: application/json", "-H", "Accept-Encoding: br, gzip"]
    with subprocess.Popen([*command, *headers], stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        lines = iter(curl.stdout)
        assert next(lines) == f": job {job}\n"
        assert next(line for line in lines if line.startswith("event: ")).endswith(".partial_image\n")
        assert call(server, "stop", {"job": job})[0]["phase"] == "stopped"
        *_, event, data = [line for line in lines if line.strip()]
    assert event == "event: error\n"
    assert "stopped from elsewhere" in data


def test_a_client_that_closes_its_stream_ends_the_drawing(server: str, steps: Steps) -> None:
    job = str(uuid.uuid4())
    steps.hold(4)
    body = {"prompt": "a fox", "size": "128x128", "steps": 60, "n": 2, "stream": True, "partial_images": 3}
    url = f"{server}/v1/images/generations"
    with httpx.stream("POST", url, json=body | {"job": job}, timeout=TIMEOUT) as stream:
        next(line for line in stream.iter_lines() if line.startswith("event: "))
    # Asked for again by its id, it is either still ending, or gone and drawn anew with these steps.
    _, info = call(server, "generate", OURS | {"job": job})
    assert (info["phase"], info["steps"]) in [("stopped", 60), ("finished", 4)]


def test_a_page_on_the_visitors_machine_may_call_and_read_what_its_client_goes_by(server: str) -> None:
    headers = {"origin": "http://localhost:5173"}
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    url = f"{server}/v1/images/generations"
    preflight = httpx.options(url, headers=headers | asks, timeout=TIMEOUT)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    answer = httpx.post(url, headers=headers, json={}, timeout=TIMEOUT)
    assert answer.status_code == 400
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
    for response in (preflight, answer):
        assert response.headers.get("access-control-allow-origin") == headers["origin"]
