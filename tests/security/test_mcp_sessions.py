"""MCP sessions: one person can take neither everybody's room nor anybody's session."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack

import httpx
import pytest
from diffusers import SD3Transformer2DModel
from starlette.types import ASGIApp, Receive, Scope, Send

from api.mcp.http import refusal
from api.mcp.sessions import MOST_SESSIONS, SHARE, NoRoom, Session, Sessions
from api.visitor import USER
from jobs.queue import Queue
from tests.api.openai.openai_server import guarded
from tests.security.support.mcp_calls import LIST_TOOLS, ONE, OTHER, answer_in, at, begin, say, tool_call
from tests.support.mcp import INITIALIZE, mcp_over
from tests.support.tiny import SMALL, hold

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
