"""Everything that can go wrong between here and a provider has its words and its remedy, and the
token is in none. What is out there is a stand-in.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import close_session

from pipeline.events import Event
from pipeline.executors.inference_providers import MOST_PIXELS
from tests.support.services.provider import SECRET, Answer, FakeProvider, as_asked, claiming, picture


def refused(draw: Callable[..., Event], caplog: pytest.LogCaptureFixture, **changes: Any) -> str:
    """The words of a drawing that failed, in which, as in its event and the log, no token may stand."""
    with caplog.at_level(logging.INFO):  # below it, in httpcore2's own, stands all that is sent
        event = draw(changes)
    assert event.phase == "failed"
    assert event.images == ()
    assert event.error
    assert SECRET not in repr(event)
    assert SECRET not in caplog.text
    assert "Far" in caplog.text  # but the owner finds it there
    return event.error


STATUSES = {
    401: ("HF_TOKEN", "huggingface.co/settings/tokens"),
    402: ("credits", "huggingface.co/settings/billing"),
    403: ("Inference Providers", "opensource.org/license/mit"),
    404: ("No provider draws Far", "models.yaml"),
    408: ("took too long", "fewer steps"),
    410: ("No provider draws Far", "models.yaml"),
    413: ("of this size", "shorter prompt"),
    418: ("HTTP 418", "another model"),
    429: ("no more drawings", "a minute"),
    500: ("HTTP 500", "Try again later"),
    502: ("HTTP 502", "another `provider`"),
    503: ("loaded", "a minute"),
    504: ("took too long", "smaller size"),
}


@pytest.mark.parametrize("status", STATUSES)
def test_each_refusal_of_a_provider_has_its_words_and_its_remedy(
    draw: Callable[..., Event], provider: FakeProvider, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    said = json.dumps({"error": f"no {{luck}} with {SECRET}"}).encode()
    provider.answer = lambda asked: Answer(said, status, {"X-Error-Message": f"not with {SECRET}"})
    words = refused(draw, caplog)
    assert all(part in words for part in STATUSES[status]), words
    assert "luck" not in words


@pytest.mark.parametrize("status", [429, 503])
def test_a_provider_that_says_when_to_come_back_is_quoted(
    draw: Callable[..., Event], provider: FakeProvider, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    provider.answer = lambda asked: Answer(b"{}", status, {"Retry-After": "30"})
    assert "again in 30 s" in refused(draw, caplog)


@pytest.mark.parametrize("after", ["-1", "0", "9" * 400, "soon", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_that_is_no_sensible_number_is_a_minute(
    draw: Callable[..., Event], provider: FakeProvider, caplog: pytest.LogCaptureFixture, after: str
) -> None:
    provider.answer = lambda asked: Answer(b"{}", 429, {"Retry-After": after})
    assert "again in a minute" in refused(draw, caplog)


@pytest.mark.parametrize("status", [400, 422])
def test_why_settings_are_refused_is_said_in_the_providers_words_but_without_the_token(
    draw: Callable[..., Event], provider: FakeProvider, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    said = json.dumps({"error": f"steps {{must}} be < 20, says {SECRET}" + "!" * 10_000}).encode()
    provider.answer = lambda asked: Answer(said, status)
    words = refused(draw, caplog)
    assert "steps {must} be < 20" in words
    assert len(words) < 600


@pytest.mark.parametrize("status", [400, 401, 422, 500])
@pytest.mark.parametrize(
    "body", [b"", b"<html>no</html>", b"[1]", b"null", b"\xff\xfe", b'{"error": [1, {}]}']
)
def test_a_refusal_in_any_shape_is_a_refusal(
    draw: Callable[..., Event],
    provider: FakeProvider,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
) -> None:
    provider.answer = lambda asked: Answer(body, status)
    words = refused(draw, caplog)
    assert "<html>" not in words
    assert "Far" in words or "HF_TOKEN" in words


NO_PICTURES = {
    "a web page": Answer(b"<!doctype html><p>Welcome", headers={"Content-Type": "text/html"}),
    "JSON": Answer(b'{"error": "loading"}'),
    "nothing": Answer(b""),
    "noise": Answer(bytes(range(256)) * 8),
    "a format that isn't taken": Answer(picture(format="GIF")),
    "a picture that ends early": Answer(picture(200, 200)[:120]),
    "a picture of many pixels": Answer(claiming(8192, 8192)),
    "a picture of far too many": Answer(claiming(50_000, 50_000)),
    "a body that isn't what it says": Answer(picture(), headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("answer", NO_PICTURES.values(), ids=NO_PICTURES)
def test_an_answer_that_is_no_picture_is_said_to_be_none(
    draw: Callable[..., Event], provider: FakeProvider, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    assert 8192 * 8192 > MOST_PIXELS > 4096 * 4096
    provider.answer = lambda asked: answer
    assert "is no picture" in refused(draw, caplog)


@pytest.mark.parametrize("sent", [0, 50])
def test_an_answer_that_is_cut_off_is_said_to_be(
    draw: Callable[..., Event], provider: FakeProvider, caplog: pytest.LogCaptureFixture, sent: int
) -> None:
    provider.answer = lambda asked: Answer(picture(), sent=sent)
    assert "connection broke off" in refused(draw, caplog)


def test_a_slow_provider_is_given_up_after_the_models_timeout(
    draw: Callable[..., Event], provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.hang()
    words = refused(draw, caplog, timeout=0.5)
    assert "within 0.5 s" in words
    assert "`timeout`" in words
    assert provider.gone.wait(60)  # nobody pays for listening any longer


def test_a_provider_that_cannot_be_reached_is_said_so(
    draw: Callable[..., Event],
    provider: FakeProvider,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    close_session()
    assert "can't be reached" in refused(draw, caplog)


@pytest.mark.parametrize(
    "chosen, serving",
    [
        ("auto", []),
        ("auto", ["new-one"]),
        ("fal-ai", []),
        ("fal-ai", ["nscale"]),
        ("fal-ai", ["tomorrows"]),
    ],
)
def test_a_model_that_no_provider_in_reach_serves_is_said_so(
    draw: Callable[..., Event],
    provider: FakeProvider,
    caplog: pytest.LogCaptureFixture,
    chosen: str,
    serving: list[str],
) -> None:
    provider.serving = serving
    words = refused(draw, caplog, provider=chosen)
    assert "models.yaml" in words
    assert provider.asked == []


HUB = {
    "no such model": (404, {"X-Error-Code": "RepoNotFound"}, "No provider draws Far"),
    "a private model": (401, {}, "No provider draws Far"),
    "a wrong token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "HF_TOKEN"),
    "a licence not accepted": (403, {"X-Error-Code": "GatedRepo"}, "opensource.org/license/mit"),
    "a fault": (500, {}, "HTTP 500"),
    "too many questions": (429, {"Retry-After": "9"}, "9 s"),
}


@pytest.mark.parametrize("status, headers, words", HUB.values(), ids=HUB)
def test_what_the_hub_says_before_the_provider_is_even_asked_has_its_words_too(
    draw: Callable[..., Event],
    provider: FakeProvider,
    caplog: pytest.LogCaptureFixture,
    status: int,
    headers: dict[str, str],
    words: str,
) -> None:
    provider.hub = lambda: Answer(b"{}", status, headers)
    assert words in refused(draw, caplog)
    assert provider.asked == []


def test_a_failure_leaves_the_images_that_came_before_it(
    draw: Callable[..., Event], provider: FakeProvider
) -> None:
    provider.answer = lambda asked: as_asked(asked) if len(provider.asked) == 1 else Answer(b"{}", 500)
    event = draw(images=2)
    assert event.phase == "failed"
    assert len(event.images) == 1
