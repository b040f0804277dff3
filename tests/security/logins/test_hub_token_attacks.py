"""A token that a program sends is asked about at the Hub: one that lies or fails lets nobody in."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from api.auth import hub_tokens
from api.auth.login import LoginRefused

TOKEN = "hf_" + "a" * 30
ACCESS = {"type": "user", "auth": {"type": "access_token"}}
WHO: dict[str, Any] = {
    "a list": [],
    "text": "ann",
    "nothing": None,
    "no name": ACCESS,
    "a number": ACCESS | {"name": 7},
    "a line break": ACCESS | {"name": "ann\n"},
    "markup": ACCESS | {"name": "<b>"},
    "a homoglyph": ACCESS | {"name": "\u0430nn"},
    "organisations that are none": ACCESS | {"name": "ann", "orgs": 7},
    "an organisation that is none": ACCESS | {"name": "ann", "orgs": ["foxes"]},
}


@pytest.mark.parametrize("answer", WHO.values(), ids=WHO.keys())
def test_a_hub_that_lies_about_a_token_lets_nobody_in(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_tokens, "whoami", lambda _: answer)
    assert_unknown()


@pytest.mark.parametrize(
    "error",
    [httpx2.ConnectError("x"), httpx2.ReadTimeout("x"), RecursionError(), ValueError("x"), OSError()],
    ids=repr,
)
def test_a_hub_that_fails_is_said_to_who_sends_a_token(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: str) -> None:
        raise error

    monkeypatch.setattr(hub_tokens, "whoami", fails)
    assert_unknown()


def assert_unknown() -> None:
    with pytest.raises(LoginRefused) as away:
        asyncio.run(hub_tokens.HubTokens().person(TOKEN, "here"))
    assert away.value.status == 503 and "try again" in away.value.words
