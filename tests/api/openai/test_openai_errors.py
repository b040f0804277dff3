"""Whatever goes wrong on /v1 has OpenAI's shape, a status that its client has a class for, and our words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file, save_file

from jobs.queue import Queue
from pipeline.engine import Engine
from tests.api.openai.openai_server import TINY, client, counting, openai_server, post
from tests.support.queues import begin, queued
from tests.support.rest import TIMEOUT
from tests.support.tiny import catalogue, entry, hold

PYTHON = ("Traceback", "Error:", "Exception", "NoneType", "Input should", "<class", 'File "')


def in_shape(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of this answer, whose words are for a person."""
    assert answer.status_code == status, answer.text[:500]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert not [python for python in PYTHON if python in error["message"]], error["message"]
    return error


BAD = {
    "steps as text": ({"steps": "5"}, "steps", '"5"'),
    "steps true": ({"steps": True}, "steps", "true"),
    "steps beyond": ({"steps": 61}, "steps", "1 to 60"),
    "steps a fraction": ({"steps": 2.5}, "steps", "whole number"),
    "n": ({"n": 5}, "n", "1 to 4"),
    "n as text": ({"n": "1"}, "n", '"1"'),
    "n and size together": ({"n": 4, "size": "512x512"}, "n", "fewer images"),
    "size below": ({"size": "64x64"}, "size", "128 to 512"),
    "size in words": ({"size": "large"}, "size", "WIDTHxHEIGHT"),
    "size a number": ({"size": 256}, "size", "WIDTHxHEIGHT"),
    "size of one side": ({"size": "256x"}, "size", "WIDTHxHEIGHT"),
    "quality": ({"quality": "best"}, "quality", '"low"'),
    "response_format": ({"response_format": "file"}, "response_format", '"b64_json"'),
    "an address in a stream": ({"response_format": "url", "stream": True}, "response_format", "stream"),
    "output_format": ({"output_format": "svg"}, "output_format", '"png"'),
    "output_compression": ({"output_compression": 101}, "output_compression", "0 to 100"),
    "output_compression of a png": ({"output_compression": 50}, "output_compression", "jpeg"),
    "background": ({"background": "transparent"}, "background", "opaque"),
    "stream": ({"stream": "yes"}, "stream", "true or false"),
    "partial_images": ({"partial_images": -1}, "partial_images", "0 to 60"),
    "moderation": ({"moderation": "off"}, "moderation", '"auto"'),
    "style": ({"style": 1}, "style", '"vivid"'),
    "user": ({"user": ["me"]}, "user", "text"),
    "seed": ({"seed": 2**53}, "seed", "9007199254740991"),
    "guidance": ({"guidance": "7"}, "guidance", "number"),
    "negative_prompt": ({"negative_prompt": 1}, "negative_prompt", "text"),
    "job": ({"job": "mine"}, "job", "UUID"),
    "one that isn't there": ({"frames": 3}, "frames", "not a parameter"),
    "cfg_scale": ({"cfg_scale": 7}, "cfg_scale", "Use guidance instead of cfg_scale."),
    "guidance_scale": ({"guidance_scale": 7}, "guidance_scale", "Use guidance instead of guidance_scale."),
    "num_inference_steps": ({"num_inference_steps": 4}, "num_inference_steps", "Use steps instead of num"),
    "n_steps": ({"n_steps": 4}, "n_steps", "Use steps instead of n_steps."),
    "width": ({"width": 256, "height": 256}, "width", 'Use size, "WIDTHxHEIGHT", instead of width.'),
    "negative": ({"negative": "blue"}, "negative", "Use negative_prompt instead of negative."),
    "num_images": ({"num_images": 2}, "num_images", "Use n instead of num_images."),
    "images": ({"images": 2}, "images", "Use n instead of images."),
    "a slip of the pen": ({"negativ_prompt": ""}, "negativ_prompt", "Perhaps negative_prompt is meant."),
    "an empty prompt": ({"prompt": "  "}, "prompt", "empty"),
    "a prompt that is too long": ({"prompt": "x" * 10_001}, "prompt", "10,000"),
    "a prompt that isn't text": ({"prompt": "a\x00"}, "prompt", "U+0000"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_parameter_is_a_bad_request_that_names_it(server: str, case: str) -> None:
    values, param, words = BAD[case]
    with pytest.raises(openai.BadRequestError) as refusal:
        client(server).images.generate(prompt="a fox", extra_body=values)
    error = refusal.value
    assert (error.param, error.type, error.code) == (param, "invalid_request_error", "invalid_request")
    assert words in error.message
    assert param in error.message
    in_shape(httpx.Response(error.status_code, json={"error": error.body}), 400)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e400"])
@pytest.mark.parametrize("param", ["guidance", "seed", "n"])
def test_a_number_that_is_none_is_refused(server: str, token: str, param: str) -> None:
    error = in_shape(post(server, f'{{"prompt": "a fox", "{param}": {token}}}'), 400)
    assert error["param"] == param


@pytest.mark.parametrize(
    "body, words",
    [
        (b"", "JSON object"),
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b"null", "JSON object"),
        (b'"a fox"', "JSON object"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'{"prompt": "a fox", "seed": ' + b"1" * 5000 + b"}", "can be read"),
        (b'{"prompt": ' + b"[" * 100_000, "can be read"),
        (b'{"n": 1}', "prompt is required"),
        (b'{"prompt": "\\ud800"}', "U+D800"),
    ],
)
def test_a_body_that_is_no_request_is_refused_in_words(server: str, body: bytes, words: str) -> None:
    assert words in in_shape(post(server, body), 400)["message"]


def test_a_body_that_doesnt_say_it_is_json_is_refused(server: str) -> None:
    """A page of another origin can send such a one without asking first."""
    error = in_shape(post(server, b'{"prompt": "a fox"}', content_type="text/plain"), 400)
    assert 'Content-Type: application/json"; got "text/plain"' in error["message"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_past_the_bound_is_refused_before_it_is_read_as_json(server: str, chunked: bool) -> None:
    body = b'{"prompt": "' + b"x" * 2**21
    sent: Any = iter([body]) if chunked else body
    error = in_shape(post(server, sent), 413)
    assert error["code"] == "body_too_large"
    assert "1,048,576" in error["message"]


def test_the_client_hears_that_its_body_is_too_large(server: str) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        client(server).images.generate(prompt="x" * 2**23)
    assert refusal.value.status_code == 413


def test_an_unknown_model_is_not_found(server: str) -> None:
    for call in (
        lambda: client(server).images.generate(prompt="a fox", model="my-gpt-image-1"),
        lambda: client(server).models.retrieve("my-gpt-image-1"),
        lambda: client(server).models.retrieve("gpt-image-1"),
    ):
        with pytest.raises(openai.NotFoundError, match=r"gpt-image-1.*sketch") as refusal:
            call()
        assert (refusal.value.param, refusal.value.code) == ("model", "model_not_found")


def test_an_unknown_address_and_a_wrong_method_have_the_shape_too(server: str) -> None:
    error = in_shape(httpx.get(f"{server}/v1/images/edits", timeout=TIMEOUT), 404)
    assert "POST /v1/images/generations" in error["message"]
    in_shape(httpx.get(f"{server}/v1/models/a%0Ab", timeout=TIMEOUT), 404)
    answer = httpx.delete(f"{server}/v1/models", timeout=TIMEOUT)
    in_shape(answer, 405)
    assert answer.headers["allow"] == "GET"
    with pytest.raises(openai.NotFoundError):
        client(server).embeddings.create(model="sketch", input="a fox")


@pytest.mark.parametrize(
    "method, path",
    [
        ("POST", "/images/generations"),
        ("POST", "/images/edits"),
        ("GET", "/models"),
        ("GET", "/models/sketch"),
        ("POST", "/chat/completions"),
        ("POST", "/responses"),
        ("POST", "/openai/deployments/dall-e-3/images/generations"),
    ],
)
def test_a_base_url_without_v1_is_told_the_right_one(server: str, method: str, path: str) -> None:
    answer = httpx.request(method, f"{server}{path}", json={"prompt": "a fox"}, timeout=TIMEOUT)
    error = in_shape(answer, 404)
    assert f"There is no {method} {path}" in error["message"]
    assert error["message"].endswith(f"Make the client's base URL {server}/v1.")
    assert error["code"] == "unknown_url"


def test_the_client_with_a_base_url_without_v1_hears_it(server: str) -> None:
    with pytest.raises(openai.NotFoundError, match=f"base URL {server}/v1"):
        client(server, base_url=server).images.generate(prompt="a fox")
    with pytest.raises(openai.NotFoundError, match=f"base URL {server}/v1"):
        client(server, base_url=server).models.list()


def test_a_model_that_cant_run_says_why_and_the_client_doesnt_ask_again(server: str) -> None:
    official, sent = counting(server)
    with pytest.raises(openai.InternalServerError, match="Needs a GPU") as refusal:
        official.images.generate(prompt="a fox", model="sd3.5-large")
    assert (refusal.value.status_code, refusal.value.code) == (503, "model_unavailable")
    assert len(sent) == 1


def test_a_full_line_is_a_rate_limit_with_the_seconds_to_come_back_after(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(catalogue(tmp_path, entry(tiny_folder)))
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=3)
    values = {"prompt": "a fox", "model": "tiny"}
    with queued(engine, tmp_path, room=1) as queue, openai_server(queue) as server:
        drawings = [begin(queue, values)]
        gate.wait()
        drawings.append(begin(queue, values))
        with pytest.raises(openai.RateLimitError, match="waiting") as refusal:
            client(server, max_retries=0).images.generate(**TINY)
        assert refusal.value.code == "busy"
        # Two of the four steps are done: what is left of the drawing in front is known.
        assert drawings[0].latest.eta is not None
        assert int(refusal.value.response.headers["retry-after"]) >= 1
        gate.open()
        assert [drawing.result().phase for drawing in drawings] == ["finished"] * 2
        assert client(server).images.generate(**TINY).data


def test_a_full_line_whose_front_knows_no_end_asks_to_come_back_in_ten_seconds(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(catalogue(tmp_path, entry(tiny_folder)))
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=1)
    with queued(engine, tmp_path, room=1) as queue, openai_server(queue) as server:
        drawings = [begin(queue, {"prompt": "a fox"})]
        gate.wait()
        drawings.append(begin(queue, {"prompt": "a fox"}))
        answer = post(server, '{"prompt": "a fox"}')
        in_shape(answer, 429)
        assert answer.headers["retry-after"] == "10"
        gate.open()
        assert [drawing.result().phase for drawing in drawings] == ["finished"] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_drawing_stopped_from_elsewhere_is_a_conflict_and_isnt_drawn_again(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """It is stopped in its second step, by the drawing itself: before the client can have asked again."""
    stopping(monkeypatch, tiny_queue)
    with openai_server(tiny_queue) as server:
        official, sent = counting(server)
        kind = openai.APIError if stream else openai.ConflictError
        with pytest.raises(kind, match="stopped from elsewhere") as refusal:
            list(official.images.generate(**TINY, stream=stream))
        assert (refusal.value.code, refusal.value.type) == ("stopped", "conflict_error")
        assert len(sent) == 1


def stopping(monkeypatch: pytest.MonkeyPatch, queue: Queue) -> None:
    forward = SD3Transformer2DModel.forward

    def stopped(*args: Any, **kwargs: Any) -> Any:
        for drawing in queue._jobs.all():
            drawing.stop()
        return forward(*args, **kwargs)

    monkeypatch.setattr(SD3Transformer2DModel, "forward", stopped)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fails, status, code, words",
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 503, "out_of_memory", "smaller width"),
        (RuntimeError("/secret/path: mat1 and mat2"), 500, "drawing_failed", "server's log"),
    ],
)
def test_a_drawing_that_fails_says_so_in_its_answer_or_in_its_stream(
    tiny_queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
    fails: Exception,
    status: int,
    code: str,
    words: str,
    stream: bool,
) -> None:
    """The errors are raised by the test: the machine must not really run out of memory."""

    def forward(*_: Any, **__: Any) -> None:
        raise fails

    monkeypatch.setattr(SD3Transformer2DModel, "forward", forward)
    with openai_server(tiny_queue) as server:
        official, sent = counting(server)
        kind = openai.APIError if stream else openai.InternalServerError
        with pytest.raises(kind, match=words) as failure:
            list(official.images.generate(**TINY, stream=stream))
        assert (failure.value.code, failure.value.type) == (code, "server_error")
        assert "secret" not in str(failure.value.body)
        if not stream:
            assert getattr(failure.value, "status_code", None) == status
        assert len(sent) == 1


def test_weights_that_cant_be_read_are_unavailable(tiny_folder: Path, tmp_path: Path) -> None:
    # What is damaged is seen before; that a file doesn't fit its base, when it is read.
    (file,) = (tiny_folder / "transformer").glob("*.safetensors")
    _, *rest = sorted(load_file(file).items())
    save_file(dict(rest), tmp_path / "cut.safetensors")
    engine = Engine(catalogue(tmp_path, entry(tmp_path / "cut.safetensors", base=str(tiny_folder))))
    with queued(engine, tmp_path) as queue, openai_server(queue) as server:
        with pytest.raises(openai.InternalServerError, match="it lacks 1 of") as failure:
            client(server).images.generate(**TINY)
        assert (failure.value.status_code, failure.value.code) == (503, "weights_error")


def test_an_error_nobody_foresaw_is_answered_without_its_words(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: Any) -> None:
        raise ValueError("/secret/path")

    monkeypatch.setattr(tiny_queue.engine, "check", check)
    with openai_server(tiny_queue) as server:
        answer = post(server, '{"prompt": "a fox"}')
        error = in_shape(answer, 500)
        assert "secret" not in answer.text
        assert error["code"] == "internal_error"
