"""Who guesses at keys and passwords learns nothing, neither by trying on nor by how long an answer takes, and
shuts nobody out who has a key that can't be guessed."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest
from limits.strategies import MovingWindowRateLimiter
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from api.auth.keys import LONG_KEY, AskForKey
from api.auth.passwords import Accounts
from pipeline.errors import RateLimited
from tests.api.openai.openai_server import guarded
from ui.login_page import logout_page, password_page

LONG, SHORT = "k" * LONG_KEY, "k" * (LONG_KEY - 1)
KEYS = [LONG, SHORT]


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


def refuse(status: int, words: str, headers: Any) -> PlainTextResponse:
    return PlainTextResponse(words, status, dict(headers))


def status(app: ASGIApp, authorization: str = "", address: str = "8.8.8.8", path: str = "/v1/models") -> int:
    headers = {"authorization": authorization} if authorization else {}
    return TestClient(app, client=(address, 4711)).get(path, headers=headers).status_code


def accounts(*logins: str) -> Accounts:
    return Accounts([SecretStr(login) for login in logins], password_page, logout_page)


def behind_login(keys: list[str]) -> ASGIApp:
    inner = guarded(hello, refuse, keys, accounts("ann:a horse"))

    class App:
        """What AskForLogin needs of Gradio's."""

        def __init__(self) -> None:
            self.tokens: dict[str, str] = {}
            self.cookie_id = "x"

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await inner({**scope, "app": self}, receive, send)

    return App()


@pytest.mark.parametrize("login", [False, True], ids=["keys alone", "behind a login"])
def test_wrong_keys_are_limited_and_a_long_right_one_is_let_in_meanwhile(login: bool) -> None:
    app = behind_login(KEYS) if login else guarded(hello, refuse, KEYS)
    for _ in range(8):
        assert status(app) == 401  # no key is no guess,
        assert status(app, f"Bearer {SHORT}") == 200  # nor is a right one
        assert status(app, f"Bearer {LONG}") == 200
    assert [status(app, f"Bearer wrong-{number}") for number in range(8)] == [401] * 5 + [429] * 3
    assert status(app) == 401
    assert status(app, f"Bearer {SHORT}") == 429  # as it would be if it were wrong
    assert status(app, f"Bearer {LONG}") == 200
    assert status(app, f"Bearer {SHORT}", "8.8.4.4") == 200
    assert status(app, "Bearer wrong", "8.8.4.4") == 401


@pytest.mark.parametrize("login", [False, True], ids=["keys alone", "behind a login"])
def test_another_sites_page_uses_up_its_own_guesses_and_not_its_visitors(login: bool) -> None:
    app = behind_login(KEYS) if login else guarded(hello, refuse, KEYS)
    http = TestClient(app, client=("8.8.8.8", 4711))
    foreign = {"authorization": "Bearer wrong", "origin": "https://evil.example"}
    found = [http.get("/v1/models", headers=foreign).status_code for _ in range(7)]
    assert found == [401] * 5 + [429] * 2
    assert status(app, f"Bearer {SHORT}") == 200
    assert status(app, "Bearer wrong") == 401


def test_a_refusal_is_the_same_for_a_wrong_key_and_for_a_short_right_one() -> None:
    http = TestClient(guarded(hello, refuse, KEYS))
    for _ in range(5):
        http.get("/v1/models", headers={"authorization": "Bearer wrong"})
    wrong, right = (
        http.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        for key in (SHORT[:-1] + "x", SHORT)
    )
    assert (wrong.status_code, wrong.text) == (right.status_code, right.text)
    assert wrong.headers.keys() == right.headers.keys()
    assert "retry-after" in wrong.headers


def test_nor_does_one_take_more_steps_than_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    app, steps = guarded(hello, refuse, KEYS), list[str]()
    assert [status(app, f"Bearer wrong-{number}") for number in range(6)] == [401] * 5 + [429]
    tested = MovingWindowRateLimiter.test

    def counted(*given: Any) -> bool:
        steps.append("looked")
        return tested(*given)

    monkeypatch.setattr(MovingWindowRateLimiter, "test", counted)
    taken = []
    for key in ("wrong", SHORT):
        steps.clear()
        assert status(app, f"Bearer {key}") == 429
        taken.append(len(steps))
    assert taken[0] == taken[1] > 0


@pytest.mark.parametrize(
    "login, sent",
    [(login, sent) for login in (False, True) for sent in (LONG, "Bearer", "Bearer ", f"Digest {LONG}", "")]
    + [(False, f"Basic {LONG}")],  # with a login it is a wrong password
)  # fmt: skip
def test_what_is_no_key_is_not_looked_at_and_no_guess(login: bool, sent: str) -> None:
    app = behind_login(KEYS) if login else guarded(hello, refuse, KEYS)
    assert [status(app, sent) for _ in range(8)] == [401] * 8
    assert status(app, "Bearer wrong") == 401


def test_a_wrong_bearer_is_no_wrong_password_and_the_other_way_round() -> None:
    app = behind_login(KEYS)
    ann = f"Basic {base64.b64encode(b'ann:a horse').decode()}"
    eve = f"Basic {base64.b64encode(b'ann:a cow').decode()}"
    assert [status(app, "Bearer wrong") for _ in range(6)] == [401] * 5 + [429]
    assert status(app, ann) == 200
    assert [status(app, eve) for _ in range(6)] == [401] * 5 + [429]
    assert status(app, f"Bearer {LONG}") == 200
    # Elsewhere no key is compared, so that there is nothing to guess at.
    assert [status(app, "Bearer wrong", "8.8.4.4", "/config") for _ in range(8)] == [401] * 8
    assert [status(app, f"Bearer {LONG}", "8.8.4.4", "/config") for _ in range(2)] == [401] * 2


def test_where_there_are_no_keys_a_bearer_is_none() -> None:
    app = behind_login([])
    assert [status(app, "Bearer wrong") for _ in range(8)] == [401] * 8
    assert status(guarded(hello, refuse), "Bearer wrong") == 200


class Compared:
    """Counts comparisons, and how long what they compared was."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.lengths: list[tuple[int, int]] = []
        compare = hmac.compare_digest

        def counted(one: Any, other: Any) -> bool:
            self.lengths.append((len(one), len(other)))
            return compare(one, other)

        patch.setattr(hmac, "compare_digest", counted)

    def take(self) -> list[tuple[int, int]]:
        """What was compared since the last time."""
        taken, self.lengths = self.lengths, []
        return taken


KNOWN = [SecretStr(key) for key in ("first-key-0123456789", "b", "third-key-0123456789" * 9)]


@pytest.mark.parametrize(
    "key", [*(key.get_secret_value() for key in KNOWN), "first-key-012345678x", "", "x" * 999]
)
def test_a_key_is_compared_with_every_one_whatever_it_is(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    asks, compared = AskForKey(hello, KNOWN), Compared(monkeypatch)
    scope = {"client": ("8.8.8.8", 1), "headers": [(b"authorization", f"Bearer {key}".encode())]}
    assert asks.known(scope) == (key in [one.get_secret_value() for one in KNOWN])
    assert compared.take() == [(32, 32)] * len(KNOWN)


@pytest.mark.parametrize(
    "name, password",
    [("ann", "a horse"), ("bob", "x"), ("ann", "x"), ("eve", "a horse"), ("", ""), ("x" * 999, "y" * 999)],
)
def test_a_name_and_a_password_are_compared_with_every_one_whatever_they_are(
    monkeypatch: pytest.MonkeyPatch, name: str, password: str
) -> None:
    two = accounts("ann:a horse", "bob:a much longer password")
    compared = Compared(monkeypatch)
    two.verify(name, password, "8.8.8.8")
    assert compared.take() == [(32, 32)] * 4


def test_beyond_the_limit_no_password_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    one, compared = accounts("ann:a horse"), Compared(monkeypatch)
    for number in range(5):
        one.verify("ann", f"{number}", "8.8.8.8")
    compared.take()
    with pytest.raises(RateLimited):
        one.verify("ann", "a horse", "8.8.8.8")
    assert compared.take() == []
