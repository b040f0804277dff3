"""What a proxy in front of the server needs: every route answers with and without the path under which the
proxy shows it (GRADIO_ROOT_PATH), whether that is stripped or not; and no event of a stream is held back.
"""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

from gradio.route_utils import get_root_url
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.guard.access import under


class BehindProxy:
    """Middleware that makes every route answer with and without the proxy's path. The outermost one: what
    comes after it sees one way of asking."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # ASGI: `path` begins with `root_path`. FastAPI (0.165) sets the latter and leaves the former as the
        # proxy sent it, which starlette's Mount (1.10) doesn't find its own part in; and Gradio's (6.31) may
        # be a whole address.
        root = path_of(scope.get("root_path", ""))
        path: str = scope["path"]
        if root and path == root:  # relative addresses of the page begin at the slash
            query = scope["query_string"].decode("latin-1")
            address = f"{quote(root)}/{f'?{query}' if query else ''}"
            await RedirectResponse(address, 308)(scope, receive, send)
            return
        if not under(path, root):
            scope = {**scope, "path": root + path}
            if raw := scope.get("raw_path"):
                scope["raw_path"] = quote(root).encode() + raw
        await self._app({**scope, "root_path": root}, receive, _flowing(send))


def app_address(request: Request, root_path: str) -> str:
    """Return the app's address, without a slash at its end, as whoever sent this request knows it: as Gradio
    (6.31) finds it for its own files, by the proxy's headers and GRADIO_ROOT_PATH. It isn't made from the
    path that was asked for, in which anything may stand."""
    return get_root_url(Request({**request.scope, "path": "/", "query_string": b""}), "/", root_path)


def path_of(root_path: str) -> str:
    """Return the path of a root path, which may be a whole address; decoded, as in a scope."""
    return unquote(urlsplit(root_path).path).rstrip("/")


def _flowing(send: Send) -> Send:
    """Return a `send` that makes proxies hand on an event stream as it comes: nginx holds back 4 KB, many
    previews, unless it is told not to, and others compress it, for which they wait for more."""

    async def flowing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            if headers.get("content-type", "").startswith("text/event-stream"):
                headers["X-Accel-Buffering"] = "no"
                headers["Cache-Control"] = "no-cache, no-transform"
        await send(message)

    return flowing
