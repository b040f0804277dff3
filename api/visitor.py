"""Who asks: whose job it is, from which address, and the context in which `spaces` looks for who pays.
Gradio makes that context for its own endpoints; the routes beside Gradio's make the same.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from typing import Any, cast

import gradio as gr
from gradio.context import LocalContext
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.record import Owner

USER = "stepwise.user"
"""Of an ASGI scope: the name of who is logged in (login.py); not there where nobody is."""


def owner_of(request: gr.Request | Request | None, first: Collection[str] = ()) -> Owner:
    """Whose job it is that this request starts.

    Args:
        request: Gradio's own or Starlette's; None: there is none, as of a call within this process.
        first: names of users who go before everyone else.
    """
    if request is None:
        return Owner("address:local")
    inner: Any = getattr(request, "request", None) or request  # Gradio's wraps one of Starlette's
    name = getattr(request, "username", None) or inner.scope.get(USER)
    person = f"user:{name}" if name else f"address:{address_of(inner.scope)}"
    return Owner(person, getattr(request, "session_hash", None) or "", bool(name) and name in first)


def asking(first: Collection[str] = ()) -> Owner:
    """Whose job it is that is started in this context: of an event of Gradio's, or of a route beside them.

    Args:
        first: as of `owner_of`.
    """
    return owner_of(LocalContext.request.get(None), first)


def address_of(scope: Scope) -> str:
    """The address that this request came from, an IPv6 one as its /64: whoever has one, has all of them.

    A Space's container is asked by the Hub's proxies alone, from addresses within their own network
    (10.0.0.0/8, seen in public logs); they append to X-Forwarded-For, to which a client may have written
    anything before. So the last one there that is public is the client's. Elsewhere the socket's counts:
    uvicorn (0.54) puts the forwarded one in its place only where it is told to trust the proxy
    (FORWARDED_ALLOW_IPS; this machine's own where that is unset).
    """
    client = scope.get("client")
    hops = [client[0]] if client else []
    if os.environ.get("SPACE_ID"):
        values = Headers(scope=scope).getlist("x-forwarded-for")
        hops = [hop.strip() for value in values for hop in value.split(",")] + hops
        hops = [hop for hop in hops if _is_public(hop)][-1:] or hops[-1:]
    return _network(hops[-1]) if hops else "unknown"


def _is_public(hop: str) -> bool:
    try:
        return ip_address(hop).is_global
    except ValueError:
        return False


def _network(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return "unknown"  # a Unix socket's; nothing else that connects has a name
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def seen_from_gradio(app: ASGIApp, demo: gr.Blocks) -> ASGIApp:
    """The app, its requests seen as Gradio's own are: whose they are, and which server's. `spaces` (0.51)
    closes that server's connections in the processes that it forks."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        LocalContext.blocks.set(demo)
        if scope["type"] == "http":
            asked_by(Request(scope))
        await app(scope, receive, send)

    return call


def asked_by(request: Request | None) -> None:
    """From here on, in this context, this request is the one that asks; None: none does, and what begins in
    this context and lasts keeps none."""
    LocalContext.request.set(cast(Any, request))  # Gradio's own wraps one of these; only its headers are read
