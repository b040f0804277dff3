"""/mcp as plain HTTP: whatever a stranger sends is refused in words, other sites' pages are kept out, and a
browser is told what this is."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from api.guard.access import MESSAGE
from tests.support.mcp import ACCEPT, INITIALIZE, connected, initialize
from tests.support.rest import TIMEOUT

HEADERS = {"Accept": ACCEPT, "Content-Type": "application/json"}


def tool_call(arguments: str) -> bytes:
    before = '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "draw", "arguments": '
    return f"{before}{arguments}}}}}".encode()


BODIES = {
    "nothing": b"",
    "a word": b"draw",
    "a list": b"[]",
    "a batch": json.dumps([INITIALIZE, INITIALIZE]).encode(),
    "binary": b"\xff\xfe\x00",
    "not UTF-8": b'{"jsonrpc": "\xff"}',
    "5000 digits": b'{"jsonrpc": "2.0", "id": ' + b"9" * 5000 + b', "method": "ping"}',
    "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "no method": b'{"jsonrpc": "2.0", "id": 1}',
    "another protocol": b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}',
    "NaN": tool_call('{"prompt": "a", "guidance": NaN}'),
    "-Infinity": tool_call('{"prompt": "a", "guidance": -Infinity}'),
    "1e400": tool_call('{"prompt": "a", "guidance": 1e400}'),
    "2 MB": tool_call(f'{{"prompt": "{"x" * 2**21}"}}'),
}
OUTSIDE = {
    "an id that is a list": b'{"jsonrpc": "2.0", "id": [1], "method": "ping"}',
    "an id that is no text": b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}',
    "a call": tool_call('{"prompt": "a fox"}'),
}


def refused(server: str, body: bytes, **headers: str) -> int:
    """The status of a refusal in words."""
    answer = httpx.post(f"{server}/mcp", content=body, headers=HEADERS | headers, timeout=60)
    assert answer.json()["error"]["message"]
    assert "Traceback" not in answer.text
    return answer.status_code


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_is_no_message_is_refused(server: str, session: dict[str, str], body: bytes) -> None:
    expected = 413 if len(body) > MESSAGE else 400
    assert refused(server, body) == expected
    assert refused(server, body, **session) == expected


@pytest.mark.parametrize("body", OUTSIDE.values(), ids=OUTSIDE)
def test_what_comes_outside_a_session_is_refused(server: str, body: bytes) -> None:
    assert refused(server, body) == 400


@pytest.fixture(scope="module")
def session(scripted_server: str) -> dict[str, str]:
    """The header of a session that has begun."""
    named = {"Mcp-Session-Id": initialize(scripted_server).headers["mcp-session-id"]}
    began = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    answer = httpx.post(f"{scripted_server}/mcp", json=began, headers=HEADERS | named, timeout=TIMEOUT)
    assert answer.status_code == 202
    return named


def error_in(answer: httpx.Response) -> str:
    """The words of a JSON-RPC error, alone or in a stream of events, or of a tool's refusal."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == "application/json":
        message = answer.json()
    else:
        (line,) = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        message = json.loads(line.removeprefix("data: "))
    if "error" in message:
        return message["error"]["message"]
    assert message["result"]["isError"]
    return message["result"]["content"][0]["text"]


@pytest.mark.parametrize(
    "body, expected",
    [
        (tool_call('{"prompt": "a", "guidance": 1e300}'), "guidance must be a number of ordinary size"),
        (tool_call('{"prompt": "a", "steps": true}'), "steps must be a whole number; got true."),
        (tool_call('{"prompt": "\\ud800"}'), "U+D800"),
        (tool_call("{}"), "prompt is required."),
        (tool_call("null"), "prompt is required."),
        (tool_call('["a fox"]'), "Invalid request parameters of tools/call: params.arguments"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call"}', "Invalid request parameters"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "resources/list"}', "Method not found"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "draw"}', 'this server has no "draw"'),
    ],
)
def test_a_message_that_cannot_be_done_is_answered_in_words(
    server: str, session: dict[str, str], body: bytes, expected: str
) -> None:
    answer = httpx.post(f"{server}/mcp", content=body, headers=HEADERS | session, timeout=60)
    assert expected in error_in(answer)


@pytest.mark.parametrize(
    "method, headers, status",
    [
        ("PUT", HEADERS, 405),
        ("DELETE", HEADERS, 400),
        ("GET", HEADERS, 400),
        ("POST", HEADERS | {"Mcp-Session-Id": "unknown"}, 404),
        ("GET", HEADERS | {"Mcp-Session-Id": "unknown"}, 404),
        ("POST", {"Content-Type": "application/json"}, 406),
        ("POST", HEADERS | {"Content-Type": "text/plain"}, 400),
    ],
)
def test_a_request_that_is_not_the_protocols_is_refused(
    server: str, method: str, headers: dict[str, str], status: int
) -> None:
    answer = httpx.request(
        method, f"{server}/mcp", content=json.dumps(INITIALIZE), headers=headers, timeout=TIMEOUT
    )
    assert answer.status_code == status


def test_both_spellings_of_the_address_answer_without_a_redirect(server: str) -> None:
    for path in ("/mcp", "/mcp/"):
        answer = httpx.post(
            f"{server}{path}", json=INITIALIZE, headers=HEADERS, follow_redirects=False, timeout=TIMEOUT
        )
        assert answer.status_code == 200
        assert '"name":"stepwise"' in answer.text


def test_a_browser_is_told_what_this_is(server: str) -> None:
    answer = httpx.get(f"{server}/mcp", headers={"Accept": "text/html,*/*"}, timeout=TIMEOUT)
    assert answer.status_code == 200
    assert "MCP server of Stepwise" in answer.text


@pytest.mark.parametrize("host", ["192.168.1.5:7860", "box.local:7860", "[::1]:7860"])
def test_clients_reach_it_by_whatever_name_it_has(server: str, host: str) -> None:
    assert initialize(server, Host=host).status_code == 200


ELSEWHERE = ["https://example.org", "http://evil.example:7860", "http://192.168.1.9", "null", "http://[", "",
             "http://localhost.evil.example", "file", "http://127.0.0.1.evil.example"]  # fmt: skip


@pytest.mark.parametrize("origin", ELSEWHERE)
def test_a_page_of_another_site_is_refused_even_under_a_name_that_points_here(
    server: str, origin: str
) -> None:
    answer = initialize(server, Origin=origin, Host="x")
    assert answer.status_code == 403
    assert "Pages of other sites may not call this server" in answer.json()["error"]["message"]
    host = origin.rpartition("/")[2]
    if "." in host and not host.replace(".", "").isdigit():  # DNS rebinding: its name is the server's
        answer = initialize(server, Origin=origin, Host=host)
        assert answer.status_code == 421
        assert "STEPWISE_HOSTS" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "origin", ["http://localhost:6274", "http://127.0.0.1:6274", "http://[::1]", "vscode-webview://abc"]
)
def test_a_page_on_this_machine_and_an_app_may_call_and_read_their_sessions_id(
    server: str, origin: str
) -> None:
    answer = initialize(server, Origin=origin)
    assert answer.status_code == 200
    assert answer.headers["access-control-expose-headers"] == "mcp-session-id"


def test_after_all_that_a_client_still_connects(server: str) -> None:
    async def run() -> int:
        async with connected(server) as session:
            return len((await session.list_tools()).tools)

    assert asyncio.run(run()) == 2
