"""What api/mcp/ uses of the SDK beside what it promises is still there."""

from __future__ import annotations

import inspect
import logging

from mcp.server import streamable_http
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import CallToolRequest

from tests.contracts.source import assert_unchanged


def test_tools_are_called_by_this_table() -> None:
    server: Server = Server("one")

    @server.call_tool()
    async def call(name: str, arguments: dict) -> list:
        return []

    assert CallToolRequest in server.request_handlers


def test_the_transport_takes_what_it_took() -> None:
    given = inspect.signature(StreamableHTTPSessionManager).parameters
    assert {"session_idle_timeout", "max_sessions", "max_request_body_size"} <= given.keys()
    assert streamable_http.GET_STREAM_KEY == "_GET_stream"
    assert streamable_http.MCP_SESSION_ID_HEADER == "mcp-session-id"
    assert streamable_http.logger is logging.getLogger("mcp.server.streamable_http")
    assert_unchanged(
        "api/mcp/transport.py: Transport",
        {
            "mcp.server.streamable_http_manager:StreamableHTTPSessionManager.handle_request": "c24137bd4f1e",
            "mcp.server.streamable_http:StreamableHTTPServerTransport.handle_request": "22d8cfaee91e",
            "mcp.server.streamable_http:StreamableHTTPServerTransport._handle_delete_request": "c10a2238f361",
        },
    )
