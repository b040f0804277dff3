"""An MCP client lists two tools, draws with them, sees each step, and is refused in words."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from mcp import ClientSession
from mcp.types import CallToolResult, ListToolsResult, ProgressNotification, ServerNotification
from PIL import Image

from api.mcp.server import MOST_BYTES, fitted
from pipeline.recipe import read_recipe
from tests.api.conftest import KEYS, Keyed
from tests.api.gradio.test_bad_input import in_words
from tests.api.gradio.test_generate import fetched
from tests.support.mcp import connected, words
from tests.support.rest import TIMEOUT, call
from tests.support.steps import Steps
from tests.support.tiny import SMALL, pixels


def called(server: str, tool: str, arguments: dict[str, Any], **headers: str) -> CallToolResult:
    async def run() -> CallToolResult:
        async with connected(server, **headers) as session:
            return await session.call_tool(tool, arguments)

    return asyncio.run(run())


def test_a_client_finds_two_tools_with_the_bounds_of_the_models_that_can_run(server: str) -> None:
    async def listed() -> ListToolsResult:
        async with connected(server) as session:
            return await session.list_tools()

    draw, list_models = asyncio.run(listed()).tools
    assert (draw.name, list_models.name) == ("draw", "list_models")
    for tool in (draw, list_models):
        jsonschema.Draft202012Validator.check_schema(tool.inputSchema)
        assert tool.description
        assert tool.inputSchema["additionalProperties"] is False
    parameters = draw.inputSchema["properties"]
    assert set(parameters) == {
        "prompt", "model", "negative_prompt", "width", "height", "steps", "guidance", "seed"
    }  # fmt: skip
    assert draw.inputSchema["required"] == ["prompt"]
    assert all(parameter["description"] for parameter in parameters.values())
    able = [model for model in call(server, "models", {})[0] if model["available"]]
    assert parameters["model"]["enum"] == [model["id"] for model in able]
    for model in able:
        assert f"- {model['id']} ({model['name']})" in parameters["model"]["description"]
    for name, limit in {"width": "side", "height": "side", "steps": "steps", "guidance": "guidance"}.items():
        assert parameters[name]["minimum"] == min(model["limits"][limit][0] for model in able)
        assert parameters[name]["maximum"] == max(model["limits"][limit][1] for model in able)
    assert draw.annotations is not None
    assert list_models.annotations is not None
    assert (draw.annotations.readOnlyHint, draw.annotations.destructiveHint) == (False, False)
    assert list_models.annotations.readOnlyHint


@pytest.mark.sketch
def test_draw_gives_the_finished_png_as_an_image_and_says_how_it_was_drawn_and_where_it_lies(
    server: str,
) -> None:
    result = called(server, "draw", SMALL | {"width": 150})
    assert not result.isError
    image, _ = result.content
    assert image.type == "image"
    assert image.mimeType == "image/png"
    png = base64.b64decode(image.data)
    assert read_recipe(io.BytesIO(png)).seed == 7
    info = json.loads(words(result))
    assert {name: info[name] for name in ("model", "width", "height", "steps", "seed")} == {
        "model": "sketch", "width": 144, "height": 128, "steps": 4, "seed": 7
    }  # fmt: skip
    assert "144 × 128 instead of 150 × 128" in info["warnings"][0]
    answer = httpx.get(info["png"], timeout=TIMEOUT)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == png
    # Some clients show their model nothing but the structured content, where there is any.
    assert result.structuredContent is None


def test_draw_with_only_a_prompt_uses_the_models_defaults(server: str) -> None:
    (model,) = [model for model in call(server, "models", {})[0] if model["default"]]
    info = json.loads(words(called(server, "draw", {"prompt": "a red apple"})))
    assert info["model"] == model["id"]
    assert {name: info[name] for name in model["defaults"]} == model["defaults"]


@pytest.mark.sketch
def test_the_same_seed_gives_the_same_pixels_as_generate(server: str) -> None:
    images, _ = call(server, "generate", SMALL)
    image = called(server, "draw", SMALL).content[0]
    assert image.type == "image"
    assert (pixels(base64.b64decode(image.data)) == pixels(fetched(images[0]))).all()


def test_the_address_is_the_one_that_a_named_proxy_was_called_by(keyed: Keyed) -> None:
    headers = {"X-Forwarded-Host": "draw.example.org", "X-Forwarded-Proto": "https"}
    headers["Authorization"] = f"Bearer {KEYS[0]}"
    result = called(keyed.url, "draw", {"prompt": "a fox", "width": 64, "height": 64, "steps": 2}, **headers)
    assert json.loads(words(result))["png"].startswith("https://draw.example.org/gradio_api/file=")


def test_each_step_is_told_to_a_client_that_asks_for_progress(server: str, steps: Steps) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))
        steps.hold(max(1, int(progress) + 1))

    async def run() -> None:
        async with connected(server) as session:
            await session.call_tool("draw", SMALL | {"steps": 20}, progress_callback=tell)

    steps.hold(1)
    asyncio.run(run())
    progress = [progress for progress, _, _ in told]
    assert progress == sorted(set(progress))  # each one more than the last
    assert {total for _, total, _ in told} == {20}
    at = [(progress, message) for progress, _, message in told if progress >= 1]
    assert at == [(step, f"step {step} of 20") for step in range(1, 21)]


def test_a_client_that_asks_for_no_progress_gets_none(server: str) -> None:
    got: list[Any] = []

    async def run() -> None:
        async with connected(server) as session:
            session._message_handler = keep
            await session.call_tool("draw", SMALL)

    async def keep(message: Any) -> None:
        if isinstance(message, ServerNotification):
            got.append(message.root)

    asyncio.run(run())
    assert not [one for one in got if isinstance(one, ProgressNotification)]


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no prompt": ({}, ["prompt is required"]),
    "an empty prompt": ({"prompt": " "}, ["prompt is empty"]),
    "a prompt that is a list": ({"prompt": ["a"]}, ["prompt", "text", '["a"]']),
    "a prompt with a NUL": ({"prompt": "a\0b"}, ["prompt", "U+0000"]),
    "too many steps": ({"steps": 10**9}, ["steps", "1 to 60", "1000000000"]),
    "steps in words": ({"steps": "many"}, ["steps", "whole number", '"many"']),
    "an unknown model": ({"model": "dall-e"}, ["model", "dall-e", "sketch"]),
    "a model that can't run here": (
        {"model": "sd3.5-large", "width": 512, "height": 512},
        ["can't run here", "HF_TOKEN"],
    ),
    "a size beyond it": ({"width": 4096}, ["width", "128 to 512", "4096"]),
    "several pictures": ({"images": 4}, ['"images" is not a parameter of draw', "prompt, model"]),
    "a name of another program's": ({"cfg_scale": 7}, ["Use guidance instead of cfg_scale."]),
    "images of one call": ({"n": 4}, ["Use a call for each picture instead of n."]),
    "a job of its own": ({"job": "x"}, ['"job" is not a parameter of draw']),
    "a name that is no text": ({"\ud800": 1}, ["is not a parameter of draw"]),
}


def refused(server: str, cases: list[tuple[str, dict[str, Any]]]) -> list[CallToolResult]:
    async def run(session: ClientSession) -> list[CallToolResult]:
        return [await session.call_tool(tool, arguments) for tool, arguments in cases]

    async def one_session() -> list[CallToolResult]:
        async with connected(server) as session:
            return await run(session)

    return asyncio.run(one_session())


def test_bad_parameters_are_refused_in_words_and_the_next_call_draws(server: str) -> None:
    cases = [("draw", SMALL | values if values else {}) for values, _ in BAD.values()]
    *results, good = refused(server, [*cases, ("draw", SMALL)])
    for (name, (_, expected)), result in zip(BAD.items(), results, strict=True):
        assert result.isError, name
        in_words(words(result))
        assert len(words(result)) < 600, name
        for part in expected:
            assert part in words(result), (name, words(result))
    assert not good.isError


def test_an_unknown_tool_is_answered_with_the_known_ones(server: str) -> None:
    for result in refused(server, [("generate", {}), ("", {}), ("a\nb" * 1000, {})]):
        assert result.isError
        assert words(result).endswith("there are draw and list_models.")
        assert len(words(result)) < 200


def test_list_models_gives_what_models_gives(server: str) -> None:
    result = called(server, "list_models", {})
    expected = {"models": call(server, "models", {})[0]}
    assert json.loads(words(result)) == expected
    assert result.structuredContent == expected
    assert called(server, "list_models", {"all": True}).isError


def png(side: int, noise: int) -> bytes:
    """A picture whose PNG is as large as its noise (0 to 255) is strong."""
    random = np.random.default_rng(0)
    light = np.linspace(0, 255 - noise, side).astype(np.uint8)
    data = light[:, None, None] + random.integers(0, noise + 1, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(data).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_small_png_is_answered_untouched() -> None:
    picture = png(256, 8)
    assert fitted(picture) == (picture, "image/png")


@pytest.mark.parametrize("side, noise", [(1024, 16), (1440, 255)])
def test_a_png_that_no_client_would_take_is_answered_as_a_jpeg_that_fits(side: int, noise: int) -> None:
    picture = png(side, noise)
    assert len(picture) > MOST_BYTES
    small, kind = fitted(picture)
    assert kind == "image/jpeg"
    assert len(small) <= MOST_BYTES
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (side, side))
