"""MCP sessions: one person can neither take everybody's room, nor anybody's session, nor the server's memory
and log; and nothing a stranger sends to /mcp is the server's mistake."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import tracemalloc
from collections import Counter
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from diffusers import SD3Transformer2DModel
from mcp import McpError
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard.access import MESSAGE
from api.mcp.http import refusal
from api.mcp.messages import MOST_DEEP, MOST_ID, MOST_VALUES
from api.mcp.sessions import MOST_SESSIONS, SHARE, NoRoom, Session, Sessions
from api.mcp.transport import silence_ended_sessions
from api.visitor import USER
from jobs.queue import Queue
from tests.api.openai.openai_server import guarded
from tests.support.mcp import ACCEPT, INITIALIZE, connected, mcp_over
from tests.support.rest import TIMEOUT
from tests.support.tiny import SMALL, hold

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


# Everybody's room.


def test_a_flood_of_sessions_from_one_address_leaves_another_open_which_draws_meanwhile(server: str) -> None:
    statuses: Counter[int] = Counter()
    ids: list[str] = []
    with at(server, ONE) as one, at(server, OTHER) as other:

        def flood() -> None:
            for _ in range(MOST_SESSIONS + SHARE):
                answer = one.post("/mcp", json=INITIALIZE)
                statuses[answer.status_code] += 1
                ids.append(answer.headers.get("mcp-session-id", ""))

        flooding = threading.Thread(target=flood)
        flooding.start()
        early = begin(other)
        assert not answer_in(say(other, early, tool_call("list_models")))["result"]["isError"]
        assert not answer_in(say(other, early, tool_call("draw", **SMALL)))["result"]["isError"]
        flooding.join()
        late = begin(other)
        assert not answer_in(say(other, late, tool_call("draw", **SMALL)))["result"]["isError"]
        assert say(other, early, LIST_TOOLS).status_code == 200
        assert statuses == {200: MOST_SESSIONS + SHARE}
        assert say(one, ids[0], LIST_TOOLS).status_code == 404  # so its client begins another
        assert say(one, ids[-1], LIST_TOOLS).status_code == 200
        assert say(one, ids[-SHARE], LIST_TOOLS).status_code == 200


class Clock:
    now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def opened(sessions: Sessions, person: str, called: bool = True) -> Session:
    """A session of this person's that has been opened, and asked something."""
    session, _ = sessions.open(person)
    sessions.opened(session, f"{id(session)}")
    sessions.answered(session)
    if called:
        with sessions.answering(session, "1"):
            pass
    return session


def is_open(sessions: Sessions, session: Session) -> bool:
    return sessions.find(session.id, session.person) is session


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(most=6, share=3, idle=1000, clock=Clock())


def test_who_has_their_share_loses_their_own_idlest_session(sessions: Sessions) -> None:
    others = opened(sessions, "b")
    first, second, third = (opened(sessions, "a") for _ in range(3))
    with sessions.answering(first, "2"):
        pass
    opened(sessions, "a")
    assert [is_open(sessions, one) for one in (others, first, second, third)] == [True, True, False, True]


def test_a_session_in_which_nothing_was_asked_goes_before_one_that_was_used_longer_ago(
    sessions: Sessions,
) -> None:
    used, _, unused = opened(sessions, "a"), opened(sessions, "a"), opened(sessions, "a", called=False)
    opened(sessions, "a")
    assert is_open(sessions, used) and not is_open(sessions, unused)


def test_of_ones_own_none_goes_that_is_in_use_and_where_all_are_one_more_is_refused(
    sessions: Sessions,
) -> None:
    first, second, third = (opened(sessions, "a") for _ in range(3))
    with ExitStack() as stack:
        stack.enter_context(sessions.answering(first, "2"))
        stack.enter_context(sessions.streaming(second))
        fourth = opened(sessions, "a")
        assert not is_open(sessions, third)
        stack.enter_context(sessions.streaming(fourth))
        with pytest.raises(NoRoom, match="3 sessions open, as many as one may have") as refused:
            sessions.open("a")
        assert refused.value.status == 429
        opened(sessions, "b")
    opened(sessions, "a")


def test_where_all_places_are_taken_the_idlest_of_whoever_has_most_goes(sessions: Sessions) -> None:
    few = [opened(sessions, "few")]
    most = [opened(sessions, "most") for _ in range(3)]
    some = [opened(sessions, "some") for _ in range(2)]
    opened(sessions, "new")
    assert [is_open(sessions, one) for one in (*few, *most, *some)] == [True, False, True, True, True, True]


def test_an_open_stream_is_ended_for_who_has_less_and_a_call_in_progress_never(sessions: Sessions) -> None:
    held = [opened(sessions, person) for person in "aaabbb"]
    with ExitStack() as stack:
        for session in held:
            stack.enter_context(sessions.streaming(session))
        stack.enter_context(sessions.answering(held[0], "2"))
        new = opened(sessions, "new")
        assert [is_open(sessions, one) for one in held] == [True, False, True, True, True, True]
        for number, session in enumerate([*held, new]):
            if number != 1:
                stack.enter_context(sessions.answering(session, "3"))
        with pytest.raises(NoRoom, match="All 6 sessions") as refused:
            sessions.open("another")
    assert refused.value.status == 503


def test_who_has_as_many_as_anybody_gives_up_their_own(sessions: Sessions) -> None:
    everybody = [opened(sessions, person) for person in "abcdef"]
    opened(sessions, "f")
    assert [is_open(sessions, one) for one in everybody] == [True] * 5 + [False]


def test_a_session_that_was_idle_for_too_long_takes_nobodys_place() -> None:
    clock = Clock()
    sessions = Sessions(most=2, share=2, idle=100, clock=clock)
    old = opened(sessions, "a")
    clock.now += 200
    assert not is_open(sessions, old)
    opened(sessions, "a"), opened(sessions, "a")
    assert len(sessions) == 2


def test_who_keeps_a_stream_open_in_every_session_is_refused_one_more_in_words(tiny_queue: Queue) -> None:
    with mcp_over(tiny_queue, share=2) as (url, _), at(url, ONE) as one, ExitStack() as streams:
        for _ in range(2):
            headers = {"Mcp-Session-Id": begin(one)}
            assert streams.enter_context(one.stream("GET", "/mcp", headers=headers)).status_code == 200
        refused = one.post("/mcp", json=INITIALIZE)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "60"
        assert refused.json()["error"]["message"].startswith("You have 2 sessions open")
        with at(url, OTHER) as other:
            begin(other)
        streams.close()
        while one.post("/mcp", json=INITIALIZE).status_code == 429:
            pass  # until the server has seen that they are closed


def test_a_call_in_progress_outlives_a_flood_and_its_answer_comes(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    with mcp_over(tiny_queue, most_sessions=4, share=3) as (url, _), at(url, ONE) as one:
        session, answers = begin(one), []
        call = tool_call("draw", prompt="a fox", steps=4)
        with at(url, ONE) as calling:
            drawing = threading.Thread(target=lambda: answers.append(say(calling, session, call)))
            drawing.start()
            gate.wait()
            twin = say(one, session, LIST_TOOLS | {"id": call["id"]})
            for address in (ONE, OTHER, "127.0.0.4"):
                with at(url, address) as flooding:
                    for _ in range(10):
                        begin(flooding)
            gate.open()
            drawing.join()
        assert not answer_in(answers[0])["result"]["isError"]
        assert (twin.status_code, "is taken" in twin.text) == (400, True)


# Whose a session is.


def intrusions(http: httpx.Client, session: str) -> list[httpx.Response]:
    """What somebody may try with a session's id."""
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
    named = {"Mcp-Session-Id": session}
    return [
        say(http, session, LIST_TOOLS),
        say(http, session, tool_call("draw", prompt="a fox", steps=1)),
        say(http, session, INITIALIZE),
        say(http, session, cancel),
        say(http, session, {"jsonrpc": "2.0", "id": 1, "result": {}}),
        http.get("/mcp", headers=named),
        http.delete("/mcp", headers=named),
    ]


def refused_as_unknown(http: httpx.Client, session: str) -> None:
    for answer, unknown in zip(intrusions(http, session), intrusions(http, "0" * 32), strict=True):
        assert answer.status_code == unknown.status_code == 404
        assert answer.content == unknown.content
        names = [name for name in answer.headers if name != "date"]
        assert {name: answer.headers[name] for name in names} == {
            name: unknown.headers[name] for name in names
        }


def test_another_address_gets_404_for_a_session_as_for_one_that_does_not_exist(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=2)
    with mcp_over(tiny_queue) as (url, _), at(url, ONE) as one, at(url, OTHER) as other:
        session, answers = begin(one), []
        with at(url, ONE) as calling:
            call = tool_call("draw", prompt="a fox", steps=4)
            drawing = threading.Thread(target=lambda: answers.append(say(calling, session, call)))
            drawing.start()
            gate.wait()
            refused_as_unknown(other, session)
            gate.open()
            drawing.join()
        assert not answer_in(answers[0])["result"]["isError"]  # neither cancelled nor ended
        assert gate.calls == 4  # and nothing else was drawn
        assert say(one, session, LIST_TOOLS).status_code == 200


def test_another_key_gets_404_and_the_same_key_may_come_from_elsewhere(tiny_queue: Queue) -> None:
    keys = ["first-key-0000", "second-key-0000"]
    with (
        mcp_over(tiny_queue, lambda app: guarded(app, refusal, keys)) as (url, _),
        at(url, ONE, Authorization="Bearer first-key-0000") as one,
        at(url, ONE, Authorization="Bearer second-key-0000") as other,
        at(url, OTHER, Authorization="Bearer first-key-0000") as moved,
    ):
        session = begin(one)
        refused_as_unknown(other, session)
        assert say(moved, session, LIST_TOOLS).status_code == 200


class Named:
    """Stands in for login.py: everybody is who they say they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, USER: dict(scope["headers"])[b"x-user"].decode()}, receive, send)


def test_another_user_gets_404(tiny_queue: Queue) -> None:
    with (
        mcp_over(tiny_queue, Named) as (url, _),
        at(url, ONE, **{"X-User": "ada"}) as ada,
        at(url, ONE, **{"X-User": "bob"}) as bob,
    ):
        session = begin(ada)
        refused_as_unknown(bob, session)
        assert say(ada, session, LIST_TOOLS).status_code == 200


# What is kept.


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
            before, number = kept(), 40
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
