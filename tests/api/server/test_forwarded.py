"""What proxies say of a request reaches the app of those alone that the owner named: each case by itself.
What strangers make of it, through the real server, stands in security/logins/test_who_is_asking.py."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from api.server.forwarded import NODE, SAID, TrustProxies
from api.visitor import address_of
from settings import Settings

NEAR, FAR = "10.0.0.7", "9.9.9.9"


class Seen:
    """An app that keeps the last scope it was called with."""

    scope: dict[str, Any]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)


def seen(
    proxies: str | None, client: str | None, *headers: tuple[str, str], kind: str = "http"
) -> dict[str, Any]:
    """What the app is called with, where this client sends these headers.

    Args:
        proxies: named, separated by commas; None: that setting isn't there.
    """
    app = Seen()
    named = None if proxies is None else [ip_network(one) for one in proxies.split(",") if one]
    scope = {
        "type": kind,
        "client": client and (client, 4711),
        "scheme": {"http": "http", "websocket": "ws"}[kind],
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    }
    asyncio.run(TrustProxies(app, named)(scope, None, None))  # type: ignore[arg-type]
    return app.scope


def by(proxies: str | None, client: str | None, *chains: str) -> str:
    """Who counts as asking."""
    return address_of(seen(proxies, client, *[("x-forwarded-for", chain) for chain in chains]))


@pytest.fixture(autouse=True)
def no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("client", ["127.0.0.1", "::1", NEAR, "8.8.8.8", None])
@pytest.mark.parametrize("proxies", [None, "", "10.0.0.8", "10.0.1.0/24,fd00::/8"])
def test_who_isnt_named_says_nothing(proxies: str | None, client: str | None, kind: str) -> None:
    headers = [(name.decode(), "https") for name in (*SAID, NODE)]
    scope = seen(proxies, client, ("host", "here"), *headers, ("accept", "x"), kind=kind)
    assert scope["headers"] == [(b"host", b"here"), (b"accept", b"x")]
    assert scope["client"] == (client and (client, 4711))
    assert scope["scheme"] == {"http": "http", "websocket": "ws"}[kind]


@pytest.mark.parametrize(
    "proxies, client",
    [(NEAR, NEAR), ("10.0.0.0/24", NEAR), ("127.0.0.1", "127.0.0.1"), ("fd00::/8", "fd00::1"),
     ("fd00::1", "fd00:0:0:0::1"), (NEAR, f"::ffff:{NEAR}"), ("10.0.0.0/24", f"::ffff:{NEAR}"),
     ("fe80::/10", "fe80::1%eth0")],
)  # fmt: skip
def test_a_named_proxy_says_who_asks_and_how(proxies: str, client: str) -> None:
    headers = ("x-forwarded-for", FAR), ("x-forwarded-proto", "https"), ("x-forwarded-host", "example.org")
    scope = seen(proxies, client, *headers)
    assert (address_of(scope), scope["scheme"]) == (FAR, "https")
    assert (b"x-forwarded-host", b"example.org") in scope["headers"]
    assert seen(proxies, client, *headers, kind="websocket")["scheme"] == "wss"


@pytest.mark.parametrize(
    "chain, asking",
    [(FAR, FAR), (f"1.1.1.1, {FAR}", FAR), (f"1.1.1.1,{FAR},10.0.0.8, 10.0.0.9", FAR),
     (f"10.0.0.9, {FAR}", FAR), (f"127.0.0.1, {FAR}", FAR), (f"{FAR}:4711", FAR),
     (f"1.1.1.1, {FAR}:x", "unknown"), ("[2a02:8108:9:1::5]:4711", "2a02:8108:9:1::/64"),
     ("1.1.1.1, 2a02:8108:9:1::5", "2a02:8108:9:1::/64"), ("1.1.1.1, [2a02:8108:9:1::5", "unknown"),
     (f"1.1.1.1, ::ffff:{FAR}", FAR), (f"{FAR}, ::ffff:10.0.0.9", FAR), (f"{FAR}, unknown", "unknown"),
     (f"{FAR}, ", NEAR), ("", NEAR), (f"{FAR}, \xe9\r\nx: 1", "unknown"), ("10.0.0.9", "10.0.0.9"),
     (f"for={FAR}", "unknown"), ("localhost", "unknown"), ("10.0.0.7/24", "unknown"),
     ("1.1.1.1, " * 10_000 + FAR, FAR), (FAR + ", 10.0.0.9" * 10_000, FAR), ("x" * 60_000, "unknown")],
    ids=lambda text: f"{text:.40}",
)  # fmt: skip
def test_of_a_chain_the_right_most_that_is_no_named_proxy_counts(chain: str, asking: str) -> None:
    assert by("10.0.0.0/24", NEAR, chain) == asking


def test_a_second_header_is_read_after_the_first() -> None:
    assert by(NEAR, NEAR, "1.1.1.1", FAR) == FAR
    assert by(NEAR, NEAR, f"1.1.1.1, {FAR}", NEAR) == FAR


def test_of_several_hosts_and_schemes_the_nearest_proxys_counts() -> None:
    evil = ("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "https")
    scope = seen(NEAR, NEAR, *evil, ("x-forwarded-host", "evil.example, here"), ("x-forwarded-proto", "http"))
    assert scope["scheme"] == "http"
    assert sorted(scope["headers"]) == [(b"x-forwarded-host", b"here"), (b"x-forwarded-proto", b"http")]
    assert seen(NEAR, NEAR, ("x-forwarded-host", "evil.example, "))["headers"] == []


@pytest.mark.parametrize(
    "forwarded, address",
    [("9.9.9.9", "9.9.9.9"), ("1.1.1.1, 9.9.9.9", "9.9.9.9"), ("1.1.1.1,9.9.9.9, 10.16.3.80", "9.9.9.9"),
     ("1.1.1.1, nonsense, 9.9.9.9, 100.64.0.9", "9.9.9.9"), ("", "10.16.3.80"), ("nonsense", "unknown"),
     ("1.1.1.1, 2a02:8108:9:1::5, 10.0.0.1", "2a02:8108:9:1::/64"), ("10.0.0.1", "10.0.0.1")],
)  # fmt: skip
def test_behind_a_spaces_proxy_it_is_the_last_public_one_that_was_forwarded(
    monkeypatch: pytest.MonkeyPatch, forwarded: str, address: str
) -> None:
    monkeypatch.setenv("SPACE_ID", "me/stepwise")
    assert by(None, "10.16.3.80", forwarded) == address
    assert by(None, "8.8.8.8", forwarded) == "8.8.8.8"  # it isn't the Hub who asks
    assert by("10.16.3.81", "10.16.3.80", forwarded) == "10.16.3.80"  # the owner's word goes first


def test_a_spaces_own_headers_stay_as_the_platform_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "me/stepwise")
    headers = ("x-forwarded-host", "me-stepwise.hf.space"), ("x-forwarded-proto", "https,http")
    scope = seen(None, "10.16.3.80", *headers, (NODE.decode(), "http://evil.example"))
    assert scope["headers"] == [(name.encode(), value.encode()) for name, value in headers]


def test_a_proxy_that_isnt_named_is_told_to_the_owner_once_and_a_stranger_never(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = TrustProxies(Seen(), [])

    def asked(client: str) -> None:
        scope = {"type": "http", "client": (client, 1), "headers": [(b"x-forwarded-for", b"9.9.9.9")]}
        asyncio.run(guard(scope, None, None))  # type: ignore[arg-type]

    with caplog.at_level(logging.WARNING, "stepwise"):
        asked("8.8.8.8")
        assert not caplog.records
        for _ in range(3):
            asked(NEAR)
    (record,) = caplog.records
    assert NEAR in record.getMessage() and "STEPWISE_PROXIES" in record.getMessage()


@pytest.mark.parametrize(
    "variables, proxies",
    [({}, None), ({"STEPWISE_PROXIES": ""}, []), ({"STEPWISE_PROXIES": " "}, []),
     ({"STEPWISE_PROXIES": " 10.0.0.7 , fd00::/8,"}, ["10.0.0.7/32", "fd00::/8"]),
     ({"FORWARDED_ALLOW_IPS": "10.0.0.7"}, ["10.0.0.7/32"]), ({"FORWARDED_ALLOW_IPS": ""}, None),
     ({"STEPWISE_PROXIES": "", "FORWARDED_ALLOW_IPS": "*"}, [])],
)  # fmt: skip
def test_the_setting_goes_before_uvicorns_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxies: list[str] | None
) -> None:
    for name in ("STEPWISE_PROXIES", "FORWARDED_ALLOW_IPS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = Settings().proxies
    assert (None if found is None else [str(one) for one in found]) == proxies
