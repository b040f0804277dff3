"""What proxies say of a request: from whom it came, and at which address it was asked. It is believed of the
proxies that the owner named (STEPWISE_PROXIES), and taken out of everyone else's requests before anything, of
Gradio's or ours, reads it. Which header says what to a proxy stands in docs/proxy.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

Network = IPv4Network | IPv6Network

PLATFORM: tuple[Network, ...] = tuple(
    ip_network(one)
    for one in (
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
)
"""A Space's proxies. Its container is asked by the Hub's alone, from addresses within their own network
(10.0.0.0/8, seen in public logs); they append to X-Forwarded-For, to which a client may have written anything
before. So the last one there that is public is the client's."""
HOST, PROTO = b"x-forwarded-host", b"x-forwarded-proto"
SAID = frozenset({b"forwarded", b"x-real-ip", b"x-forwarded-for", HOST, PROTO})
"""Headers that a proxy sets: read by uvicorn (0.54) or Gradio (6.31), or by what else comes to be called."""
NODE = b"x-gradio-server"
"""In which Gradio's own Node server, which isn't used here (`ssr_mode`), says what the address is."""


class TrustProxies:
    """Middleware that believes what a named proxy says of a request (`client` and `scheme` are the visitor's
    then), and removes those headers from everyone else's requests.

    It must be outside of everything else, uvicorn's own (`proxy_headers`) left out: that believes 127.0.0.1
    unless it is told otherwise. Of X-Forwarded-For the right-most address counts that is no named proxy's
    (uvicorn's rule): what stands left of it was there when it came to the first named one.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[Network] | None = None) -> None:
        """proxies: None: a Space's own on a Space, none elsewhere."""
        self._app = app
        self._on_platform = proxies is None and bool(os.environ.get("SPACE_ID"))
        named = PLATFORM if self._on_platform else proxies or ()
        self._proxied = ProxyHeadersMiddleware(cast(Any, app), [str(one) for one in _however_seen(named)])
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        headers = [(name, value) for name, value in scope["headers"] if name != NODE]
        if client and client[0] in self._proxied.trusted_hosts:
            # The Hub's own chains, whatever they are, stay as Gradio expects them.
            scope["headers"] = headers if self._on_platform else _nearest(headers)
            await self._proxied(cast(Any, scope), cast(Any, receive), cast(Any, send))
            return
        scope["headers"] = [(name, value) for name, value in headers if name not in SAID]
        if not self._told and client and len(scope["headers"]) < len(headers) and _is_near(client[0]):
            self._told = True
            logging.getLogger("stepwise").warning(
                "A request from %s says that it was forwarded, which isn't believed. If that is your proxy's "
                "address, name it in STEPWISE_PROXIES (docs/proxy.md).",
                client[0],
            )
        await self._app(scope, receive, send)


def _nearest(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return these headers with the last alone of several hosts and schemes. Gradio takes the first, which of
    a proxy that appends to them (Apache) is what the client wrote."""
    last = {name: value.rpartition(b",")[2].strip() for name, value in headers if name in (HOST, PROTO)}
    others = [(name, value) for name, value in headers if name not in last]
    return others + [(name, value) for name, value in last.items() if value]


def _however_seen(networks: Iterable[Network]) -> list[Network]:
    """Return these networks, and how their IPv4 addresses look to a socket of IPv6 (::ffff:10.0.0.7)."""
    seen = list[Network]()
    for one in networks:
        seen.append(one)
        if isinstance(one, IPv4Network):
            seen.append(IPv6Network(f"::ffff:{one.network_address}/{96 + one.prefixlen}"))
    return seen


def _is_near(host: str) -> bool:
    """Whether this address belongs to this machine or its network, as proxies do: a stranger's isn't
    logged."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False
