"""MCP as its official client speaks it, and the MCP app alone over an engine of the test's own, so that a
test can hold a drawing and look at it from both sides."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import uvicorn
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult
from starlette.applications import Starlette
from starlette.types import ASGIApp

from api.mcp.http import McpApp, mcp_routes
from api.mcp.server import mcp_server
from api.pictures import PictureFiles
from jobs.queue import Queue

ACCEPT = "application/json, text/event-stream"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "tests", "version": "1"},
    },
}


@contextlib.asynccontextmanager
async def connected(server: str, ends: bool = True, **headers: str) -> AsyncIterator[ClientSession]:
    """A client whose session has begun.

    Args:
        ends: whether it ends its session when it is closed, or just closes its connections.
        headers: sent with every request.
    """
    async with (
        httpx.AsyncClient(headers=headers, timeout=120) as http,
        streamable_http_client(f"{server}/mcp", http_client=http, terminate_on_close=ends) as (
            read,
            write,
            _,
        ),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        yield session


def words(result: CallToolResult) -> str:
    """The text of an answer."""
    (text,) = [content.text for content in result.content if content.type == "text"]
    return text


def initialize(server: str, http: httpx.Client | None = None, **headers: str) -> httpx.Response:
    """A client's first request, as plain HTTP; nothing comes after it unless the test sends it."""
    post = httpx.post if http is None else http.post
    return post(f"{server}/mcp", json=INITIALIZE, headers={"Accept": ACCEPT, **headers}, timeout=60)


@contextlib.contextmanager
def mcp_over(
    queue: Queue, behind: Callable[[ASGIApp], ASGIApp] = lambda app: app, **options: Any
) -> Iterator[tuple[str, McpApp]]:
    """The MCP app over this queue, served by uvicorn in this process: its address, and itself.

    Args:
        behind: puts something in front of it.
        options: McpApp's.
    """
    files = PictureFiles(queue.folder.logs)
    app = McpApp(mcp_server(queue, files, lambda request: str(request.base_url)), **options)
    web = Starlette(routes=mcp_routes(behind(app)), lifespan=app.lifespan)
    server = uvicorn.Server(
        uvicorn.Config(web, port=0, log_level="warning", timeout_graceful_shutdown=1, ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", app
    finally:
        server.should_exit = True
        thread.join(30)
