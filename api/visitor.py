"""Who asks: whose job it is, from which address, and the context in which `spaces` looks for who pays. Gradio
makes that context for its own endpoints; the routes beside Gradio's make the same.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from typing import Any, cast

import gradio as gr
from gradio.context import LocalContext
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.store.models import Owner
from jobs.store.owner_names import person_of, session_of

USER = "stepwise.user"
"""Of an ASGI scope: the name of who is logged in (auth/login.py); not there where nobody is."""


def owner_of(request: gr.Request | Request | None, first: Collection[str] = ()) -> Owner:
    """Return whose job it is that this request starts; of a bounded length, whatever the client calls itself.

    Args:
        request: Gradio's own or Starlette's; None: there is none, as of a call within this process.
        first: names of users who go before everyone else.
    """
    if request is None:
        return Owner("address:local")
    inner: Any = getattr(request, "request", None) or request  # Gradio's wraps one of Starlette's
    name = getattr(request, "username", None) or inner.scope.get(USER)
    person = person_of(name) if name else f"address:{address_of(inner.scope)}"
    session = session_of(getattr(request, "session_hash", None) or "")
    return Owner(person, session, bool(name) and name in first)


def asking(first: Collection[str] = ()) -> Owner:
    """Return whose job it is that is started in this context: of an event of Gradio's, or of a route beside
    them.

    Args:
        first: as of `owner_of`.
    """
    return owner_of(LocalContext.request.get(None), first)


def address_of(scope: Scope) -> str:
    """Return the address that this request came from; of an IPv6 one its /64, because whoever has one address
    has all of them.

    It is the socket's, or what a named proxy said in its place (server/forwarded.py): no header is read here.
    """
    client = scope.get("client")
    try:
        address = ip_address(client[0] if client else "")
    except ValueError:
        return "unknown"  # a Unix socket's, or no address though a named proxy says it
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def user_of(request: Request) -> str:
    """Return the name under which Gradio knows who sent this request (`launch`'s `auth_dependency`): empty
    for a program that sent a key. Who isn't let in is refused before Gradio is asked (auth/login.py)."""
    return request.scope.get(USER, "")


class WithGradioContext:
    """Middleware that gives requests to routes beside Gradio's the context that Gradio's own have: who asks,
    and at which server. `spaces` (0.51) closes that server's connections in the processes that it forks."""

    def __init__(self, app: ASGIApp, demo: gr.Blocks) -> None:
        self.app, self._demo = app, demo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        LocalContext.blocks.set(self._demo)
        if scope["type"] == "http":
            set_asking_request(Request(scope))
        await self.app(scope, receive, send)


def set_asking_request(request: Request | None) -> None:
    """Make this request the one that asks, from here on in this context. None: none does, so that what begins
    in this context and lasts keeps no request."""
    LocalContext.request.set(cast(Any, request))  # Gradio's own wraps one of these; only its headers are read
