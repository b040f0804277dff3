"""Bad input gets a clear refusal before the queue, for every client: in words that name the parameter, the
value and the bound. None of it reaches the pipeline, and the next good request works. More requests of any
kind by

    STEPWISE_CASES=10000 python -m pytest tests/api/gradio/test_bad_input.py -k any_kind --timeout 3600
"""

from __future__ import annotations

import gzip
import json
import os
from typing import Any

import httpx
import pytest
from gradio_client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.rest import TIMEOUT, call, post, refusal, stream
from tests.support.tiny import SMALL

REQUESTS_TRIED = int(os.environ.get("STEPWISE_CASES", "150"))
PYTHON = ("Traceback", "Error", "Exception", "NoneType", "Input should", "<class", 'File "')


def in_words(words: str) -> None:
    assert words.strip() not in ("", "null", "None")
    assert not [python for python in PYTHON if python in words], words


BAD = {
    "guidance NaN": ('"guidance": NaN', "guidance", "finite", "NaN"),
    "guidance Infinity": ('"guidance": Infinity', "guidance", "finite", "Infinity"),
    "guidance -Infinity": ('"guidance": -Infinity', "guidance", "finite", "Infinity"),
    "guidance 1e400": ('"guidance": 1e400', "guidance", "finite", "Infinity"),
    "guidance as the text NaN": ('"guidance": "NaN"', "guidance", "number", "NaN"),
    "guidance as the text inf": ('"guidance": "Infinity"', "guidance", "number", "Infinity"),
    "guidance negative": ('"guidance": -1', "guidance", "0 to 10", "-1"),
    "guidance True": ('"guidance": true', "guidance", "number", "true"),
    "guidance a list": ('"guidance": [3]', "guidance", "number", "[3]"),
    "steps a billion": ('"steps": 1000000000', "steps", "1 to 60", "1000000000"),
    "steps negative": ('"steps": -3', "steps", "1 to 60", "-3"),
    "steps zero": ('"steps": 0', "steps", "1 to 60", "0"),
    "steps True": ('"steps": true', "steps", "whole number", "true"),
    "steps NaN": ('"steps": NaN', "steps", "whole number", "NaN"),
    "steps of 4000 digits": (f'"steps": {"9" * 4000}', "steps", "1 to 60", "9999"),
    "steps a dict": ('"steps": {"a": 1}', "steps", "whole number", '{"a": 1}'),
    "width a half": ('"width": 1023.5', "width", "whole number", "1023.5"),
    "width a million": ('"width": 1000000', "width", "128 to 512", "1000000"),
    "width a text": ('"width": "256"', "width", "whole number", '"256"'),
    "height infinite": ('"height": Infinity', "height", "whole number", "Infinity"),
    "area": (
        '"model": "sd3.5-large", "width": 1536, "height": 1536',
        "width",
        "1,048,576",
        "1536 × 1536 = 2,359,296",
    ),
    "area × images": ('"width": 512, "height": 512, "images": 4', "images", "524,288", "1,048,576"),
    "images 0": ('"images": 0', "images", "1 to 4", "0"),
    "images 400": ('"images": 400', "images", "1 to 4", "400"),
    "unknown model": ('"model": "dall-e"', "model", "sketch.", "dall-e"),
    "a list for the model": ('"model": ["sketch"]', "model", "text", '["sketch"]'),
    "a number for the model": ('"model": 3', "model", "text", "3"),
    "a model with a surrogate": ('"model": "\\ud800"', "model", "not text", "U+D800"),
    "seed 2^64": ('"seed": 18446744073709551616', "seed", "9007199254740991", "18446744073709551616"),
    "seed 1.5": ('"seed": 1.5', "seed", "whole number", "1.5"),
    "seed x": ('"seed": "x"', "seed", "whole number", "x"),
    "seed -2": ('"seed": -2', "seed", "0 to", "-2"),
    "seed without room": ('"seed": 9007199254740991, "images": 2', "seed", "2⁵³", "9007199254740991"),
    "job no UUID": ('"job": "mine"', "job", "UUID", "mine"),
    "job a number": ('"job": 5', "job", "UUID", "5"),
    "negative prompt a list": ('"negative_prompt": ["blue"]', "negative_prompt", "text", '["blue"]'),
    "negative prompt NUL": ('"negative_prompt": "a\\u0000"', "negative_prompt", "not text", "U+0000"),
    "negative prompt long": (f'"negative_prompt": "{"x" * 10001}"', "negative_prompt", "10,000", "10,001"),
}  # fmt: skip
BAD_PROMPTS = {
    "null": ("null", "text", "null"),
    "empty": ('""', "empty", "empty"),
    "blank": ('"  \\n\\t "', "empty", "empty"),
    "a dict": ('{"a": 1}', "text", '{"a": 1}'),
    "a list": ('["a"]', "text", '["a"]'),
    "a number": ("5", "text", "5"),
    "True": ("true", "text", "true"),
    "NaN": ("NaN", "text", "NaN"),
    "a megabyte": (f'"{"x" * 1_000_000}"', "10,000", "1,000,000"),
    "NUL": ('"a\\u0000b"', "not text", "U+0000 at position 1"),
    "escape": ('"a\\u001bb"', "not text", "U+001B at position 1"),
    "lone high surrogate": ('"\\ud800"', "not text", "U+D800"),
    "lone low surrogate": ('"a \\udfff"', "not text", "U+DFFF"),
    "deep": ("[" * 400 + "]" * 400, "text", "[[["),
}
CASES = {name: (f'{{"prompt": "a red apple", {body}}}', *rest) for name, (body, *rest) in BAD.items()} | {
    f"prompt {name}": (f'{{"prompt": {prompt}}}', "prompt", *rest)
    for name, (prompt, *rest) in BAD_PROMPTS.items()
}


@pytest.mark.parametrize("body, parameter, bound, value", CASES.values(), ids=CASES)
def test_bad_input_is_refused_before_the_queue(
    server: str, body: str, parameter: str, bound: str, value: str
) -> None:
    answer = post(server, "generate", body.encode())
    assert answer.status_code == 422  # and no event's id: nothing was queued
    words = refusal(answer)
    in_words(words)
    assert parameter in words
    assert bound in words, words
    assert value in words, words
    assert len(words) < 500
    wrong = [one["parameter_name"] for one in answer.json()["detail"] if not one["is_valid"]]
    assert wrong == [parameter]


def test_an_unknown_model_is_answered_with_the_known_ones(server: str) -> None:
    words = refusal(post(server, "generate", {"prompt": "a", "model": "dall-e"}))
    for model in call(server, "models", {})[0]:
        assert model["id"] in words


def test_a_model_that_cannot_run_here_is_refused_with_its_reason(server: str) -> None:
    for model in call(server, "models", {})[0]:
        if not model["available"]:
            words = refusal(post(server, "generate", {"prompt": "a", "model": model["id"]}))
            in_words(words)
            assert model["reason"] in words


def test_several_mistakes_are_all_named(server: str) -> None:
    words = refusal(post(server, "generate", {"prompt": "", "steps": "many", "seed": 1.5, "job": 1}))
    for name in ("steps", "seed", "job"):
        assert name in words


@pytest.mark.parametrize(
    "endpoint, body, status, words",
    [
        ("generate", "{}", 422, "prompt is required"),
        ("generate", '{"steps": 4}', 422, "prompt is required"),
        ("generate", '{"prompt": "a", "stepz": 4}', 422, '"stepz" is not a parameter of /generate; it has'),
        ("generate", '{"prompt": "a", "\\ud800": 4}', 422, "is not a parameter"),
        ("generate", '{"prompt": "a", "stepz": 4}', 422, "Perhaps steps is meant."),
        ("generate", '{"prompt": "a", "cfg_scale": 4}', 422, "Use guidance instead of cfg_scale."),
        ("generate", '{"prompt": "a", "size": "256x256"}', 422, "Use width and height instead of size."),
        ("generate", '{"prompt": "a", "n": 4}', 422, "Use images instead of n."),
        ("stop", '{"job_id": "a"}', 422, "Use job instead of job_id."),
        ("stop", "{}", 422, "job is required"),
        ("models", '{"a": 1}', 422, "is not a parameter of /models"),
        ("draw", "{}", 404, "There is no endpoint /draw; there are: /generate, /job, /jobs, /models, /stop."),
    ],
)  # fmt: skip
def test_a_missing_or_unknown_name_is_refused_in_words(
    server: str, endpoint: str, body: str, status: int, words: str
) -> None:
    answer = post(server, endpoint, body.encode())
    assert answer.status_code == status
    assert words in refusal(answer)
    in_words(refusal(answer))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"x"', b"{", b"\xff\xfe", b'{"prompt": "\xff"}',
     b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
     b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
     b'{"prompt": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}'],
    ids=["nothing", "list", "text", "open", "binary", "not UTF-8", "5000 digits", "100,000 deep", "a file"],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(server: str, body: bytes) -> None:
    answer = post(server, "generate", body)
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "path", ["v1/images/generations", "mcp", "gradio_api/call/v2/generate", "gradio_api/queue/join"]
)
def test_a_compressed_body_is_refused_as_such(server: str, path: str) -> None:
    """Named by its header, whatever it is; and gzip by how it begins, where the header was forgotten."""
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    body = gzip.compress(b'{"prompt": "a fox"}')
    for coding in ("gzip", "deflate", "br", "zstd", "GZIP", ""):
        sent = headers | ({"content-encoding": coding} if coding else {})
        answer = httpx.post(f"{server}/{path}", content=body, headers=sent, timeout=TIMEOUT)
        assert answer.status_code == 415, answer.text
        named = f'encoded as \\"{coding}\\"' if coding else "encoded as gzip, though no header says so"
        assert named in answer.text and "send it as it is" in answer.text
        assert answer.headers["accept-encoding"] == "identity"


def test_a_body_said_to_be_as_it_is_is_read(server: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": "identity"}
    url = f"{server}/v1/images/generations"
    answer = httpx.post(url, content=b'{"n": 1}', headers=headers, timeout=TIMEOUT)
    assert "prompt is required" in answer.text
    without = httpx.get(f"{server}/v1/models", headers={"content-encoding": "gzip"}, timeout=TIMEOUT)
    assert without.is_success


@pytest.mark.parametrize(
    "values",
    [{"steps": 10**9}, {"width": 1023.5}, {"model": "dall-e"}, {"model": ["sketch"]}, {"steps": True},
     {"prompt": ""}, {"prompt": {"a": 1}}, {"prompt": None}, {"seed": 2**64}, {"seed": "x"},
     {"guidance": "NaN"}],
    ids=str,
)  # fmt: skip
def test_gradio_client_gets_the_same_words(client: Client, values: dict[str, Any]) -> None:
    (parameter,) = values
    with pytest.raises(Exception, match=parameter) as refused:
        client.predict(**SMALL | values, api_name="/generate")
    in_words(str(refused.value))


@pytest.mark.parametrize("path", ["call/generate", "queue/join"])
def test_the_positional_ways_in_refuse_too(server: str, path: str) -> None:
    values = ["a red apple", None, None, 10**6, None, -3, float("nan"), None, None, None]
    session = {"session_hash": "positional", "fn_index": _function(server, "generate")}
    body = json.dumps({"data": values, **(session if path == "queue/join" else {})})
    answer = httpx.post(
        f"{server}/gradio_api/{path}",
        content=body,
        headers={"content-type": "application/json"},
        timeout=TIMEOUT,
    )
    words = refusal(answer)
    assert words == "guidance must be a finite number; got NaN."
    in_words(words)


def test_no_call_skips_the_queue(server: str) -> None:
    answer = httpx.post(
        f"{server}/gradio_api/api/generate", json={"data": ["a"] + [None] * 9}, timeout=TIMEOUT
    )
    assert 400 <= answer.status_code < 500


def _function(server: str, name: str) -> int:
    functions = httpx.get(f"{server}/config", timeout=TIMEOUT).json()["dependencies"]
    return next(function["id"] for function in functions if function["api_name"] == name)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=12)
    | st.sampled_from(["sketch", "a fox", "\ud800", "\x00", 128, 256, 4, 3.5, 1e308, 10**30, -1, True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
NAMES = ("model", "negative_prompt", "width", "height", "steps", "guidance", "seed", "images", "job")
REQUESTS = st.fixed_dictionaries(
    {}, optional={"prompt": st.just("a fox") | VALUES, **dict.fromkeys(NAMES, st.none() | VALUES)}
)


@given(REQUESTS)
@settings(
    max_examples=REQUESTS_TRIED, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_requests_of_any_kind_are_refused_in_words_or_drawn_within_the_limits(
    server: str, http: httpx.Client, limits: dict[str, Any], values: dict[str, Any]
) -> None:
    body = json.dumps(values)  # NaN, Infinity and lone surrogates as they are
    answer = http.post(
        "/gradio_api/call/v2/generate", content=body, headers={"content-type": "application/json"}
    )
    if answer.status_code != 200:
        assert refusal(answer) not in ("", "null")
        assert "Traceback" not in answer.text
        return
    for _, data in stream(server, "generate", answer.json()["event_id"]):
        info = data[1]
        if info["phase"] == "queued":
            call(server, "stop", {"job": info["job"]})
    assert info["phase"] in ("stopped", "finished")
    bounds = limits[info["model"]]
    for name, value in (("steps", info["steps"]), ("guidance", info["guidance"]), ("images", info["images"]),
                        ("side", info["width"]), ("side", info["height"])):  # fmt: skip
        assert bounds[name][0] <= value <= bounds[name][1]
    assert info["width"] * info["height"] * info["images"] <= bounds["total_pixels"]
    assert info["prompt"].strip()


@pytest.fixture(scope="module")
def http(scripted_server: str) -> Any:
    with httpx.Client(base_url=scripted_server, timeout=TIMEOUT) as http:
        yield http


@pytest.fixture(scope="module")
def limits(scripted_server: str) -> dict[str, Any]:
    return {model["id"]: model["limits"] for model in call(scripted_server, "models", {})[0]}


def test_after_all_that_a_good_request_works(server: str) -> None:
    assert call(server, "generate", SMALL)[1]["phase"] == "finished"
