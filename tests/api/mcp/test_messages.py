"""What MCP clients send is bounded and kept by nobody: nothing a stranger sends to /mcp is the server's
mistake, stands in its log, or stays in its memory."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import tracemalloc
from collections import Counter
from typing import Any

import httpx
import pytest
from mcp import McpError

from api.guard.access import MESSAGE
from api.mcp.messages import MOST_DEEP, MOST_ID, MOST_VALUES
from api.mcp.transport import silence_ended_sessions
from jobs.queue import Queue
from tests.security.support.mcp_calls import HEADERS, LIST_TOOLS, ONE, at, begin, say, tool_call
from tests.support.mcp import INITIALIZE, connected, mcp_over
from tests.support.rest import TIMEOUT


def deep(levels: int) -> list[Any]:
    within: list[Any] = []
    for _ in range(levels):
        within = [within]
    return within


PAST_BOUNDS = {
    "an id of 10,000 characters": {"jsonrpc": "2.0", "id": "x" * 10_000, "method": "ping"},
    "an id that is a fraction": {"jsonrpc": "2.0", "id": 1.5, "method": "ping"},
    "an id that is null": {"jsonrpc": "2.0", "id": None, "method": "ping"},
    "an id that is true": {"jsonrpc": "2.0", "id": True, "method": "ping"},
    "an id that is an object": {"jsonrpc": "2.0", "id": {}, "method": "ping"},
    "an id of 400 digits": {"jsonrpc": "2.0", "id": 10**400, "method": "ping"},
    "a long token of progress": tool_call("draw", prompt="a")
    | {"params": {"name": "draw", "_meta": {"progressToken": "x" * (MOST_ID + 1)}}},
    "many values": tool_call("draw", prompt=[[]] * MOST_VALUES),
    "many within each other": tool_call("draw", prompt=deep(MOST_DEEP)),
    "params that are a list": {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]},
    "a batch": [LIST_TOOLS, LIST_TOOLS],
}
IGNORED = {
    "an answer to nothing": {"jsonrpc": "2.0", "id": "words of mine", "result": {"words": "of mine"}},
    "an error to nothing": {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "words of mine"}},
    "an unknown notification": {"jsonrpc": "2.0", "method": "words/of", "params": {"words": "of mine"}},
    "a cancelling of an object": {"jsonrpc": "2.0", "method": "notifications/cancelled",
                                  "params": {"requestId": {"words": "of mine"}}},
    "a cancelling of nothing": {"jsonrpc": "2.0", "method": "notifications/cancelled",
                                "params": {"requestId": 77, "reason": "words of mine"}},
    "a cancelling without params": {"jsonrpc": "2.0", "method": "notifications/cancelled"},
}  # fmt: skip
ERRORS = {
    "logging/setLevel": {"level": "words of mine"},
    "resources/list": {},
    "resources/read": {"uri": "file:///etc/passwd"},
    "completion/complete": {"ref": "words of mine"},
    "prompts/get": {"name": "words of mine"},
    "tasks/get": {"taskId": "words of mine"},
    "words/of/mine": {},
    "tools/call": {"name": {}, "arguments": {"prompt": "words of mine"}},
    "tools/list": {"cursor": {"words": "of mine"}},
    "initialize": {"words": "of mine"},
}


def test_nothing_a_client_sends_fails_in_the_server_or_stands_in_its_log(
    tiny_queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    with mcp_over(tiny_queue) as (url, app), at(url, ONE) as one:
        session = begin(one)
        for what, message in PAST_BOUNDS.items():
            answer = say(one, session, message)
            assert (answer.status_code, bool(answer.json()["error"]["message"])) == (400, True), what
        for what, message in IGNORED.items():
            assert say(one, session, message).status_code == 202, what
        for method, params in ERRORS.items():
            message = {"jsonrpc": "2.0", "id": "mine", "method": method, "params": params}
            answer = say(one, session, message).json()
            assert (answer["id"], answer["error"]["code"] in (-32601, -32602)) == ("mine", True), method
        named = {"Mcp-Session-Id": session}
        for headers, status in (
            ({"Mcp-Protocol-Version": "words of mine"}, 400),
            ({"Accept": "words/*; of=mine"}, 406),
            ({"Content-Type": "words of mine"}, 400),
            ({"Mcp-Session-Id": "w\xf6rds of mine".encode("latin-1")}, 404),
            ({"Mcp-Session-Id": "x" * 50_000}, 404),
        ):
            answer = one.post("/mcp", json=LIST_TOOLS, headers=named | headers)  # type: ignore[dict-item]
            assert answer.status_code == status, headers
        assert say(one, session, LIST_TOOLS).status_code == 200
        assert len(app._sessions) == 1
    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert logged == []


def test_a_stream_is_opened_for_who_asks_for_what_came_after_an_event(server: str) -> None:
    with at(server, ONE) as one:
        named = {"Mcp-Session-Id": begin(one), "Last-Event-ID": "7"}
        with one.stream("GET", "/mcp", headers=named) as stream:
            assert stream.status_code == 200
            assert one.get("/mcp", headers=named).status_code == 409
        assert one.delete("/mcp", headers=named).status_code == 200
        assert one.delete("/mcp").status_code == 400


def test_a_session_that_ends_while_it_is_asked_answers_everything_and_logs_no_traceback(
    tiny_queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    silence_ended_sessions()  # as mcp_app does
    statuses: Counter[int] = Counter()

    async def run(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=TIMEOUT) as http:
            for _ in range(20):
                began = await http.post("/mcp", json=INITIALIZE)
                named = {"Mcp-Session-Id": began.headers["mcp-session-id"]}
                asked = [
                    http.post("/mcp", json=message, headers=named)
                    for number in range(15)
                    for message in (LIST_TOOLS | {"id": number}, IGNORED["a cancelling of nothing"])
                ]
                asked.insert(12, http.delete("/mcp", headers=named))
                statuses.update(answer.status_code for answer in await asyncio.gather(*asked))

    with mcp_over(tiny_queue) as (url, app):
        asyncio.run(run(url))
        assert not len(app._sessions)
    assert set(statuses) == {200, 202, 404}
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_session_keeps_neither_what_its_client_says_of_itself_nor_its_last_message(
    tiny_queue: Queue,
) -> None:
    begins = INITIALIZE | {"params": INITIALIZE["params"] | {"about": "x" * (MESSAGE - 1000)}}  # type: ignore[operator]
    call = tool_call("nothing", prompt="x" * (MESSAGE - 1000))
    bodies = [json.dumps(message).encode() for message in (begins, call)]
    cookie = {"Cookie": "x" * 50_000}

    def kept() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    with mcp_over(tiny_queue) as (url, app), at(url, ONE) as one:
        say(one, begin(one), bodies[1])  # what the first call loads isn't growth
        tracemalloc.start()
        try:
            before, number = kept(), 80  # so many that what else comes and goes is little of each
            for _ in range(number):
                answer = one.post("/mcp", content=bodies[0], headers=cookie)
                assert answer.status_code == 200
                named = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
                assert one.post("/mcp", content=bodies[1], headers=named | cookie).status_code == 200
            each = (kept() - before) / number
        finally:
            tracemalloc.stop()
        assert len(app._sessions) == number + 1
    assert each < 100_000


def test_the_official_client_reads_the_refusal_of_what_there_is_not(tiny_queue: Queue) -> None:
    async def run(url: str) -> None:
        async with connected(url) as session:
            with pytest.raises(McpError, match="Method not found"):
                await session.list_resources()
            assert len((await session.list_tools()).tools) == 2

    with mcp_over(tiny_queue) as (url, _):
        asyncio.run(run(url))
