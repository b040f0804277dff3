"""What the tests of MCP's sessions send: as a client from an address of its choice would."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.support.mcp import ACCEPT, INITIALIZE
from tests.support.rest import TIMEOUT

HEADERS = {"Accept": ACCEPT, "Content-Type": "application/json"}
LIST_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ONE, OTHER = "127.0.0.3", "127.0.0.2"
"""Two addresses that no other test calls from."""


def at(server: str, address: str, **headers: str) -> httpx.Client:
    """A client of this server whose requests come from this address."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server, headers=HEADERS | headers, timeout=TIMEOUT, transport=transport)


def begin(http: httpx.Client) -> str:
    """A new session's id."""
    answer = http.post("/mcp", json=INITIALIZE)
    assert answer.status_code == 200, answer.text
    return answer.headers["mcp-session-id"]


def say(http: httpx.Client, session: str | None, message: Any) -> httpx.Response:
    headers = {} if session is None else {"Mcp-Session-Id": session}
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return http.post("/mcp", content=body, headers=headers)


def tool_call(tool: str, number: int = 2, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def answer_in(response: httpx.Response) -> dict[str, Any]:
    """The last message of a stream of events."""
    assert response.status_code == 200, response.text
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    return json.loads(lines[-1].removeprefix("data: "))
