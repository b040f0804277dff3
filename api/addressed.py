"""What is refused for how it is addressed, whichever route it asks for: an address that is too long to be
one, and a forwarded host that isn't one. Gradio and httpx put both into addresses, and fail at it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.shapes import Shape, shape_of
from pipeline.errors import quoted

LONGEST = 8192
"""Characters of a path and its query, as nginx reads; httpx (0.28) makes no address of more than 65,536."""
_HOST = re.compile(r"([A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
"""As a browser writes it: a name (one with other letters in Punycode) or an address, and a port."""


class Addressed:
    """The app, which gets requests with an address of which another can be made."""

    def __init__(self, app: ASGIApp, shapes: Mapping[str, Shape], other: Shape) -> None:
        """As of `shapes.ErrorsInShape`."""
        self._app, self._shapes, self._other = app, shapes, other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        shape: Shape = shape_of(self._shapes, get_route_path(scope)) or self._other
        host = Headers(scope=scope).get("x-forwarded-host", "").partition(",")[0].strip()
        length = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if length > LONGEST:
            words = f"The address has {length:,} characters; {LONGEST:,} are the most that are read."
            await shape.refuse(414, words, {})(scope, receive, send)
        elif host and not _is_host(host):
            words = f"X-Forwarded-Host is {quoted(host)}, which is no host: the proxy in front must set it."
            await shape.refuse(400, words, {})(scope, receive, send)
        else:
            # Gradio's own proxy for rendering on the server sets it, which is off: here it is a stranger's,
            # and would become the address of everything.
            headers = [one for one in scope["headers"] if one[0] != b"x-gradio-server"]
            await self._app({**scope, "headers": headers}, receive, send)


def _is_host(host: str) -> bool:
    found = _HOST.fullmatch(host)
    return found is not None and int((found[2] or ":0")[1:]) < 65536
