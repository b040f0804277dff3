"""Whose job a request starts: who is logged in, else the address that really sent it."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from starlette.requests import Request

from api.visitor import USER, address_of, owner_of
from jobs.store.models import Owner
from jobs.store.owner_names import session_of

S1 = session_of("s1")


def scope(client: str | None = "8.8.8.8", **headers: str) -> dict[str, Any]:
    listed = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "client": client and (client, 4711), "headers": listed}


@pytest.mark.parametrize(
    "client, address",
    [("8.8.8.8", "8.8.8.8"), ("10.0.0.7", "10.0.0.7"), (None, "unknown"), ("", "unknown"),
     ("x" * 9000, "unknown"),
     ("2a02:8108:9:1:aaaa::1", "2a02:8108:9:1::/64"), ("2a02:8108:9:1:bbbb::2", "2a02:8108:9:1::/64"),
     ("2a02:8108:9:2::1", "2a02:8108:9:2::/64"), ("::ffff:8.8.8.8", "8.8.8.8"), ("::1", "::/64")],
)  # fmt: skip
def test_an_address_is_the_sockets_and_an_ipv6_one_counts_by_its_64(client: str, address: str) -> None:
    assert address_of(scope(client)) == address


@pytest.mark.parametrize("space", ["", "me/stepwise"])
def test_what_a_request_says_of_itself_is_not_read(monkeypatch: pytest.MonkeyPatch, space: str) -> None:
    monkeypatch.setenv("SPACE_ID", space)
    assert address_of(scope("8.8.8.8", x_forwarded_for="1.1.1.1", x_real_ip="1.1.1.1")) == "8.8.8.8"


def test_an_owner_is_the_user_where_someone_is_logged_in_else_the_address() -> None:
    plain = Request(scope())
    assert owner_of(plain) == Owner("address:8.8.8.8")
    assert owner_of(gr.Request(plain, session_hash="s1")) == Owner("address:8.8.8.8", S1)
    assert owner_of(gr.Request(plain, username="ann", session_hash="s1")) == Owner("user:ann", S1)
    known = Request(scope() | {USER: "ann"})
    assert owner_of(known) == Owner("user:ann")
    assert owner_of(gr.Request(known, username=None, session_hash="s1")) == Owner("user:ann", S1)


def test_a_configured_user_goes_first_and_an_address_of_that_name_doesnt() -> None:
    assert owner_of(Request(scope() | {USER: "ann"}), first=("ann",)).first
    assert not owner_of(Request(scope() | {USER: "bob"}), first=("ann",)).first
    assert not owner_of(Request(scope("8.8.8.8")), first=("8.8.8.8", "")).first


def test_without_a_request_it_is_this_machine() -> None:
    assert owner_of(None) == Owner("address:local")
