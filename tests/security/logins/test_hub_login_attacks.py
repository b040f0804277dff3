"""The login with Hugging Face against a provider that lies. What the libraries (authlib, joserfc) check is
tested through the app's own routes.
"""

from __future__ import annotations

import base64
import gzip
import hmac
import json
import logging
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from api.auth import hub_login
from api.auth.hub_login import HubLogin, Provider
from tests.security.support.hub_logins import HERE, assert_nobody, browser_of, kept, log_in, login_at, reach
from tests.support.services.openid import (
    CLIENT,
    DISCOVERY,
    LEFT_OUT,
    SECRET,
    Answer,
    OpenIdProvider,
    serve_openid,
)
from ui.login_page import login_page, logout_page

LONG = 10 * 2**20


def forged(alg: str, key: Any, kid: str = "own", **headers: Any) -> Callable[[dict[str, Any]], str]:
    return lambda claims: jwt.encode({"alg": alg, "kid": kid, **headers}, claims, key, [alg])


def signed_with(secret: bytes) -> Callable[[dict[str, Any]], str]:
    """HS256 by hand: joserfc refuses a public key as a secret."""

    def sign(claims: dict[str, Any]) -> str:
        head = unsigned(claims, "HS256").rstrip(".")
        mac = hmac.digest(secret, head.encode(), "sha256")
        return f"{head}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    return sign


def unsigned(claims: dict[str, Any], alg: str = "none") -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": alg, "kid": "own"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


def test_a_provider_that_tells_the_truth_logs_its_user_in(browser: TestClient) -> None:
    answer = log_in(browser)
    assert (answer.status_code, len(kept(answer))) == (303, 1)


NOW = int(time.time())
CLAIMS: dict[str, dict[str, Any]] = {
    "no nonce": {"nonce": LEFT_OUT},
    "another nonce": {"nonce": "another"},
    "a nonce that is no text": {"nonce": True},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": LEFT_OUT},
    "a list of issuers": {"iss": ["https://evil.example"]},
    "another audience": {"aud": "another"},
    "another audience, for us": {"aud": "another", "azp": CLIENT},
    "no audience": {"aud": LEFT_OUT},
    "an empty audience": {"aud": [], "azp": CLIENT},
    "for us and for another": {"aud": [CLIENT, "another"]},
    "given to another": {"azp": "another"},
    "for both, given to another": {"aud": [CLIENT, "another"], "azp": "another"},
    "an audience that is none": {"aud": {CLIENT: 1}},
    "expired": {"iat": NOW - 9000, "exp": NOW - 3600},
    "never expires": {"exp": LEFT_OUT},
    "expires in words": {"exp": "tomorrow"},
    "not yet valid": {"nbf": NOW + 3600},
    "of the future": {"iat": NOW + 3600, "exp": NOW + 7200},
    "nobody's": {"sub": LEFT_OUT},
    "another's": {"sub": "2"},
    "an empty subject": {"sub": ""},
    "a subject that is no text": {"sub": 1},
}


@pytest.mark.parametrize("lie", CLAIMS.values(), ids=CLAIMS.keys())
def test_an_id_token_that_says_something_else_lets_nobody_in(
    hub: OpenIdProvider, browser: TestClient, lie: dict[str, Any]
) -> None:
    hub.lies = {"claims": lie}
    assert_nobody(log_in(browser))


def signatures(hub: OpenIdProvider) -> dict[str, Callable[[dict[str, Any]], str]]:
    public = hub.key.as_pem(private=False)
    stranger = RSAKey.generate_key(2048)
    return {
        "not at all": unsigned,
        "by the app's secret": signed_with(SECRET.encode()),
        "by the public key as a secret": signed_with(public),
        "by a stranger's key": forged("RS256", stranger),
        "by a key of another name": forged("RS256", stranger, "another"),
        "by a key that it brings": forged("RS256", stranger, "own", jwk=stranger.as_dict(private=False)),
        "by a key that it says where to fetch": forged("RS256", stranger, jku="https://evil.example/keys"),
        "by an algorithm that isn't the provider's": forged("RS512", hub.key),
        "no token": lambda _: "x.y.z",
        "no text": lambda _: "",
    }


SIGNATURES = (
    "not at all", "by the app's secret", "by the public key as a secret", "by a stranger's key",
    "by a key of another name", "by a key that it brings", "by a key that it says where to fetch",
    "by an algorithm that isn't the provider's", "no token", "no text",
)  # fmt: skip


@pytest.mark.parametrize("how", SIGNATURES)
def test_an_id_token_that_isnt_signed_by_the_provider_lets_nobody_in(
    hub: OpenIdProvider, browser: TestClient, how: str
) -> None:
    hub.sign = signatures(hub)[how]
    assert_nobody(log_in(browser))
    if how != "by an algorithm that isn't the provider's":
        # Nor where the provider says that it signs so.
        hub.lies = {"discovery": {"id_token_signing_alg_values_supported": ["none", "HS256", "RS256"]}}
        assert_nobody(log_in(browser_of(login_at(hub))), 401, 502)


def test_an_id_token_of_another_login_lets_nobody_in(hub: OpenIdProvider, browser: TestClient) -> None:
    tokens: list[str] = []

    def keep(claims: dict[str, Any]) -> str:
        tokens.append(jwt.encode({"alg": "RS256", "kid": "own"}, claims, hub.key, ["RS256"]))
        return tokens[0]

    hub.sign = keep
    assert log_in(browser).status_code == 303
    assert_nobody(log_in(browser))


TOKENS: dict[str, dict[str, Any]] = {
    "no ID token": {"id_token": LEFT_OUT},
    "no ID token, but its words": {"id_token": LEFT_OUT, "userinfo": {"sub": "1"}},
    "an empty ID token": {"id_token": None, "userinfo": {"sub": "1"}},
    "an ID token that is no text": {"id_token": ["x"]},
    "no access token": {"access_token": LEFT_OUT},
    "an access token that is no text": {"access_token": {"a": 1}},
    "an access token of two lines": {"access_token": "a\r\nX-Evil: 1"},
    "another kind of token": {"token_type": "mac"},
    "a kind that is no text": {"token_type": 7},
    "ended already": {"expires_in": 0},
    "ended long ago": {"expires_in": -5},
    "for no number of seconds": {"expires_in": float("nan")},
    "for ever": {"expires_in": float("inf")},
    "until in words": {"expires_in": "soon"},
    "until a list": {"expires_in": [1]},
    "until so many digits": {"expires_in": "9" * 5000},
    "an error that is no text": {"error": {"a": 1}},
}


@pytest.mark.parametrize("lie", TOKENS.values(), ids=TOKENS.keys())
def test_a_token_answer_that_lies_lets_nobody_in(
    hub: OpenIdProvider, browser: TestClient, lie: dict[str, Any]
) -> None:
    hub.lies = {"token": lie}
    assert_nobody(log_in(browser), 401, 502)


@pytest.mark.parametrize("seconds", [1e308, 10**300, "9000000000", 10**18], ids=str)
def test_no_login_lasts_longer_than_a_month_whatever_the_provider_says(
    hub: OpenIdProvider, browser: TestClient, seconds: object
) -> None:
    hub.lies = {"token": {"expires_in": seconds}}
    (cookie,) = kept(log_in(browser))
    assert int(re.search(r"Max-Age=(\d+)", cookie)[1]) <= 30 * 24 * 3600  # type: ignore[index]


PEOPLE: dict[str, dict[str, Any]] = {
    "another subject": {"sub": "2"},
    "no subject": {"sub": LEFT_OUT},
    "a subject that equals it": {"sub": True},
    "no name": {"preferred_username": LEFT_OUT},
    "an empty name": {"preferred_username": ""},
    "a number": {"preferred_username": 7},
    "a list": {"preferred_username": ["ann"]},
    "nothing": {"preferred_username": None},
    "a long name": {"preferred_username": "a" * 500_000},
    "a line break": {"preferred_username": "ann\r\nSet-Cookie: x=y"},
    "a last line break": {"preferred_username": "ann\n"},
    "a control character": {"preferred_username": "ann\x00"},
    "markup": {"preferred_username": "<img src=x onerror=alert(1)>"},
    "a homoglyph": {"preferred_username": "\u0430nn"},
    "a lone surrogate": {"preferred_username": "ann\ud800"},
    "another kind of person": {"preferred_username": "address:127.0.0.1"},
    "organisations that are none": {"orgs": 7},
    "organisations in words": {"orgs": "foxes"},
    "an organisation that is none": {"orgs": [7]},
    "an organisation without a name": {"orgs": [{}]},
}


@pytest.mark.parametrize("lie", PEOPLE.values(), ids=PEOPLE.keys())
def test_a_person_that_isnt_one_isnt_let_in(
    hub: OpenIdProvider, browser: TestClient, lie: dict[str, Any]
) -> None:
    hub.lies = {"userinfo": lie}
    assert_nobody(log_in(browser), 401, 502)


ODD: dict[str, Answer] = {
    "HTML": Answer.of(b"<h1>Welcome</h1>", headers={"Content-Type": "text/html"}),
    "nothing": Answer.of(b""),
    "a list": Answer.of(b"[]"),
    "null": Answer.of(b"null"),
    "deep JSON": Answer.of(b"[" * 100_000),
    "no UTF-8": Answer.of(b'{"a": "\xff\xfe"}'),
    "500": Answer.of(b"{}", 500),
    "500 in HTML": Answer.of(b"<h1>", 500),
    "404": Answer.of(b"{}", 404),
    "another place": Answer.of(b"{}", 307, {"Location": "https://evil.example/"}),
    "10 MB": Answer.of(b" " * LONG + b"{}"),
    "10 MB that say so": Answer.of(b" " * LONG, headers={"Content-Length": f"{LONG}"}),
    "10 MB in 10 KB": Answer.of(gzip.compress(b" " * LONG), headers={"Content-Encoding": "gzip"}),
    "half of it": Answer.of(b"{}", headers={"Content-Length": "100"}),
}
PLACES = (DISCOVERY, "/oauth/token", "/oauth/jwks", "/oauth/userinfo")


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_a_provider_that_fails_is_said_in_words_and_asked_again(
    hub: OpenIdProvider, browser: TestClient, path: str, odd: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    hub.answers = {path: odd}
    assert_nobody(reach(path, browser), 401, 502)
    secrets = (SECRET, *hub.given, *hub.codes)
    # But the browser's own.
    log = "\n".join(line for line in caplog.text.splitlines() if HERE not in line)
    assert not [one for one in secrets if one in log]
    assert "Traceback" not in log
    hub.answers = {}
    assert log_in(browser).status_code == 303


@pytest.mark.parametrize("path", PLACES)
def test_a_provider_that_drips_is_given_up(
    hub: OpenIdProvider, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_login, "PATIENCE", 0.7)
    hub.answers = {path: Answer(pieces=((0.2, b" "),) * 300)}
    began = time.monotonic()
    assert_nobody(reach(path, browser_of(login_at(hub))), 502)
    assert time.monotonic() - began < 50  # of the sixty that it would take


def test_a_provider_that_isnt_there_is_said_in_words(
    hub: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = HubLogin(Provider(CLIENT, SECRET, "http://127.0.0.1:9"), (), login_page, logout_page)
    assert_nobody(browser_of(login).get("/login/huggingface"), 502)


def test_no_answer_leads_the_apps_secret_elsewhere(hub: OpenIdProvider) -> None:
    with serve_openid() as other:
        for path in PLACES:
            there = Answer.of(b"", 307, {"Location": f"{other.url}/oauth/token"})
            hub.answers = {path: there}
            assert_nobody(reach(path, browser_of(login_at(hub))), 401, 502)
        assert not other.requests


DISCOVERIES: dict[str, Callable[[str], dict[str, Any]]] = {
    "another issuer": lambda _: {"issuer": "https://evil.example"},
    "no issuer": lambda _: {"issuer": LEFT_OUT},
    "a list of issuers": lambda url: {"issuer": [url]},
    "another host": lambda _: {"token_endpoint": "https://evil.example/oauth/token"},
    "another port": lambda _: {"userinfo_endpoint": "http://127.0.0.1:9/oauth/userinfo"},
    "people elsewhere": lambda _: {"authorization_endpoint": "https://evil.example/oauth/authorize"},
    "keys elsewhere": lambda _: {"jwks_uri": "https://evil.example/keys"},
    "another scheme": lambda url: {"token_endpoint": url.replace("http:", "https:") + "/oauth/token"},
    "a name before the host": lambda url: {
        "token_endpoint": url.replace("//", "//evil.example:80@") + "/oauth/token"
    },
    "a file": lambda _: {"jwks_uri": "file:///etc/passwd"},
    "a script": lambda _: {"authorization_endpoint": "javascript:alert(1)"},
    "a path alone": lambda _: {"token_endpoint": "/oauth/token"},
    "a number": lambda _: {"authorization_endpoint": 7},
    "nothing": lambda _: {"authorization_endpoint": LEFT_OUT},
    "no keys": lambda _: {"jwks_uri": LEFT_OUT},
    "no userinfo": lambda _: {"userinfo_endpoint": LEFT_OUT},
    "keys of no kind": lambda _: {"jwks_uri": ["x"]},
    "an address that is none": lambda _: {"token_endpoint": "http://[x/oauth/token"},
    "algorithms that are none": lambda _: {"id_token_signing_alg_values_supported": 7},
    "only algorithms with secrets": lambda _: {"id_token_signing_alg_values_supported": ["none", "HS256"]},
}


@pytest.mark.parametrize("lie", DISCOVERIES.values(), ids=DISCOVERIES.keys())
def test_a_provider_whose_parts_are_elsewhere_is_none(
    hub: OpenIdProvider, browser: TestClient, lie: Callable[[str], dict[str, Any]]
) -> None:
    hub.lies = {"discovery": lie(hub.url)}
    assert_nobody(browser.get("/login/huggingface"), 502)
    assert set(hub.requests) == {DISCOVERY}
    hub.lies = {}
    assert log_in(browser).status_code == 303  # it isn't held against it


def test_what_a_discovery_says_beside_its_endpoints_changes_nothing(
    hub: OpenIdProvider, browser: TestClient
) -> None:
    own = RSAKey.generate_key(2048, {"kid": "own"})
    hub.lies = {
        "discovery": {
            "jwks": {"keys": [own.as_dict(private=False)]},
            "verify": False,
            "follow_redirects": True,
            "proxy": "http://127.0.0.1:9",
            "token_endpoint_auth_method": "client_secret_post",
            "scope": "openid manage-repos",
            "redirect_uri": "https://evil.example/",
        }
    }
    there = browser.get("/login/huggingface").headers["location"]
    asked = parse_qs(urlsplit(there).query)
    assert asked["scope"] == ["openid profile"]
    assert asked["redirect_uri"] == [hub.callback]
    assert log_in(browser).status_code == 303
    hub.sign = forged("RS256", own)
    assert_nobody(log_in(browser))
