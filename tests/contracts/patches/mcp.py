"""Where Stepwise reaches into the MCP SDK."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "1.30.0"

PATCHES = (
    Patch(
        "mcp",
        "api/mcp/server.py",
        "server.request_handlers[CallToolRequest] = ",
        "`lowlevel.Server.request_handlers`",
        "the decorator refuses in jsonschema's words, and logs what the client sent",
        "tests/contracts/test_mcp.py::test_tools_are_called_by_this_table",
    ),
    Patch(
        "mcp",
        "api/mcp/transport.py",
        "self._sdk.handle_request",
        "`StreamableHTTPSessionManager`",
        "ends no session by itself, and keeps each session's last request until the next",
        "tests/contracts/test_mcp.py::test_the_transport_takes_what_it_took",
    ),
    Patch(
        "mcp",
        "api/mcp/transport.py",
        'getLogger("mcp.server.streamable_http").addFilter',
        "its log",
        "a traceback for each session that ends in use",
        "tests/contracts/test_mcp.py::test_the_transport_takes_what_it_took",
    ),
    Patch(
        "mcp",
        "api/mcp/http.py",
        "GET_STREAM_KEY",
        "`streamable_http.GET_STREAM_KEY`",
        "a request with this id would take the place of the session's stream",
        "tests/contracts/test_mcp.py::test_the_transport_takes_what_it_took",
    ),
)
