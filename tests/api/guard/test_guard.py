"""With STEPWISE_API_KEYS, /v1 asks for a key; the start says who may draw; a key is never shown."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from api.auth.keys import access_notice
from api.guard.access import ACCESS, POST, REFUSE, Access
from api.guard.bodies import BoundBody
from pipeline.errors import SettingError
from settings import Settings
from tests.api.conftest import KEYS, Keyed
from tests.api.openai.openai_server import client, guarded
from tests.support.rest import TIMEOUT, call

ASKED = {"prompt": "a fox", "size": "64x64", "extra_body": {"steps": 1}}


@pytest.mark.parametrize("key", KEYS)
def test_a_client_with_one_of_the_keys_draws(keyed: Keyed, key: str) -> None:
    assert client(keyed.url, api_key=key).images.generate(**ASKED).data
    assert client(keyed.url, api_key=key).models.list().data[0].id == "tiny"


@pytest.mark.parametrize("key", ["none", KEYS[0][:-1], KEYS[0] + "x", KEYS[0].upper(), ",".join(KEYS)])
def test_a_client_with_another_key_gets_an_authentication_error(keyed: Keyed, key: str) -> None:
    headers = {"x-forwarded-for": "8.8.1.1"}
    with pytest.raises(openai.AuthenticationError, match="none of the server's keys") as refusal:
        client(keyed.url, api_key=key, default_headers=headers).images.generate(**ASKED)
    assert (refusal.value.code, refusal.value.type) == ("invalid_api_key", "authentication_error")
    assert refusal.value.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("headers", [{}, {"authorization": KEYS[0]}, {"authorization": f"Basic {KEYS[0]}"}])
@pytest.mark.parametrize("path", ["models", "models/tiny", "openapi.json", "nothing", "models/a%0Ab"])
def test_everything_under_v1_asks_for_a_key(keyed: Keyed, path: str, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{keyed.url}/v1/{path}", headers=headers, timeout=TIMEOUT)
    assert answer.status_code == 401
    assert "key" in answer.json()["error"]["message"]


def test_without_a_key_no_body_is_read(keyed: Keyed) -> None:
    with pytest.raises(openai.AuthenticationError):
        client(keyed.url, default_headers={"x-forwarded-for": "8.8.1.2"}).images.generate(prompt="x" * 2**21)


def test_the_page_and_gradios_endpoints_ask_for_none(keyed: Keyed) -> None:
    assert httpx.get(keyed.url, timeout=TIMEOUT).status_code == 200
    assert [model["id"] for model in call(keyed.url, "models", {})[0]] == ["tiny"]


def test_the_start_says_that_keys_are_asked_for_and_shows_none(keyed: Keyed) -> None:
    log = keyed.log.read_text()
    assert "/v1 and /mcp ask for a key, one of the 2 in STEPWISE_API_KEYS." in log
    assert not [key for key in KEYS if key in log]


def test_the_start_says_that_without_keys_everyone_may_draw() -> None:
    assert "open to everyone" in access_notice(())


@pytest.mark.parametrize(
    "value, words",
    [("two words", "key 1"), ("good,sécret", "key 2"), (",,", "no key"), ('"quoted"', "key 1")],
)
def test_keys_that_cant_be_sent_stop_the_start_in_words_that_hide_them(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("STEPWISE_API_KEYS", value)
    with pytest.raises(SettingError, match=words) as refusal:
        Settings()
    assert "STEPWISE_API_KEYS" in str(refusal.value)
    assert value not in str(refusal.value)


@pytest.mark.parametrize(
    "value, keys", [("", []), (" ", []), ("a", ["a"]), (" a ,b-_.~+/==,", ["a", "b-_.~+/=="])]
)
def test_keys_are_separated_by_commas_and_trimmed(
    monkeypatch: pytest.MonkeyPatch, value: str, keys: list[str]
) -> None:
    monkeypatch.setenv("STEPWISE_API_KEYS", value)
    settings = Settings()
    assert [key.get_secret_value() for key in settings.api_keys] == keys
    assert not [key for key in keys if len(key) > 1 and key in repr(settings)]


# The middlewares by themselves, in front of any app.


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await PlainTextResponse(f"{len(message['body'])} {message['more_body']}")(scope, receive, send)


def refuse(status: int, words: str, headers: Any) -> PlainTextResponse:
    return PlainTextResponse(words, status, dict(headers))


def test_a_body_up_to_the_bound_comes_whole_and_one_byte_more_is_refused() -> None:
    bound = BoundBody(echo)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        access = Access("/", POST, "everyone", most_bytes=10)
        await bound({**scope, ACCESS: access, REFUSE: refuse}, receive, send)

    http = TestClient(app)
    for body in (b"", b"x" * 10):
        assert http.post("/", content=body).text == f"{len(body)} False"
        assert http.post("/", content=iter([body[:5], body[5:]])).text == f"{len(body)} False"
    for sent in (b"x" * 11, iter([b"x" * 6, b"x" * 5])):
        assert http.post("/", content=sent).status_code == 413
    # A length that lies is not believed either way.
    assert http.post("/", content=b"x" * 20, headers={"content-length": "5"}).status_code == 413


def test_two_authorization_headers_are_none() -> None:
    http = TestClient(guarded(echo, refuse, ["right"]))
    right, wrong = ("authorization", "Bearer right"), ("authorization", "Bearer wrong")
    models = "/v1/models"
    assert http.get(models, headers=[right]).status_code == 200
    assert http.get(models, headers=[("authorization", "bearer  right ")]).status_code == 200
    for headers in ([wrong, right], [right, wrong], [wrong], []):
        assert http.get(models, headers=headers).status_code == 401
