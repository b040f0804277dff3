"""What one person may ask of Gradio's queue (6.31): how often, how much at a time, and how long the names may
be that they choose. What comes of it, and stays unread, is bounded in unread.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import partial
from typing import Any

import fastapi
from gradio.queueing import Queue
from gradio.route_utils import API_PREFIX
from starlette.datastructures import QueryParams
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.gradio.patches import TASK_NAME_SEPARATOR, Push, open_events, wrap_push
from api.gradio.unread import memory_size, person_of
from api.guard.access import Often, Refuse
from api.guard.bodies import replay_first
from api.visitor import owner_of
from jobs.scheduling.rate_limit import RateLimit, rates

TIMES, TIMES_AT_ONCE = 10, 100
"""Calls for each drawing that one may start: through the queue (a program also looks at models, follows what
it draws and stops it), and of those that are answered at once and leave nothing unread. Each open page makes
30 of these a minute while a model is loaded."""
MOST_OPEN = 100
"""Calls of one person that wait or run at once, of everybody's 1,000. All behind one address are one."""
AGAIN = {"Retry-After": "5"}
"""Seconds until one of them has probably ended."""
MOST_DATA = 256 * 1024
"""Bytes of what an event of the page brings with it, or any call beside its parameters: it is kept as long as
the call waits and runs. Two texts of 10,000 characters take 80 KB at most. What is wrong with a parameter of
the API, its functions say in words of their own."""
LONGEST_NAME = 128
"""Characters of a session's or an event's name. Gradio's page and @gradio/client send 11 for a session, and
gradio_client 36; the server's own for events have 32."""
NAMED = re.compile(rf"{API_PREFIX}/(?:queue/join|call|run|api|cancel|reset)(?:/|$)", re.IGNORECASE)
"""Whose bodies have such names."""
HEARTBEAT = re.compile(rf"{API_PREFIX}/heartbeat/(.*)", re.DOTALL | re.IGNORECASE)
NAMES = ("session_hash", "event_id")


def call_rates(drawings: str) -> dict[Often, RateLimit]:
    """Return how often one person may call, by the table's words for it (guard/access.py).

    Args:
        drawings: the rate of these, as of STEPWISE_RATE; empty: as often as they like.
    """
    return {"joins": _times(TIMES, drawings), "calls": _times(TIMES_AT_ONCE, drawings)}


def _times(times: int, drawings: str) -> RateLimit:
    many = (
        f"{times * rate.amount} per {rate.multiples} {rate.GRANULARITY.name}"
        for rate in rates(drawings, "STEPWISE_RATE")
    )
    return RateLimit(", ".join(many), doing="calls")


class BoundNames:
    """Middleware that refuses names which no client sends, before Gradio keeps or compares them. It stands
    behind BoundBody, which hands on a body as a whole."""

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = get_route_path(scope)
        given: dict[str, Any] = dict.fromkeys(NAMES, "")
        given |= {name: value for name, value in QueryParams(scope["query_string"]).items() if name in NAMES}
        if heartbeat := HEARTBEAT.match(path):
            given["session_hash"] = heartbeat[1]
        invalid = _invalid_name(given)
        if scope["method"] == "POST" and not invalid and NAMED.match(path):
            message = await receive()
            invalid = _invalid_name(_read(message.get("body", b"")))
            receive = replay_first(message, receive)
        if invalid:
            words = (
                f"{invalid} is a name of at most {LONGEST_NAME} letters, digits and signs of ASCII, without "
                f"{TASK_NAME_SEPARATOR}."
            )
            await self._refuse(400, words, {})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _read(body: bytes) -> dict[str, Any]:
    """Return a body's fields, or none where Gradio can't read it either, and says so."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _invalid_name(given: dict[str, Any]) -> str | None:
    """Return which of these names can't be one, or None. What is no text at all, Gradio refuses."""
    for name in NAMES:
        value = given.get(name)
        if isinstance(value, str) and not is_name(value):
            return name
    return None


def is_name(value: str) -> bool:
    """Whether a session or an event may be called so."""
    known = value.isascii() and value.isprintable()
    return len(value) <= LONGEST_NAME and known and TASK_NAME_SEPARATOR not in value


def limit_open_calls(queue: Queue, most: int = MOST_OPEN) -> None:
    """Give every person a share of the queue's places, and bound what is kept of a call.

    Args:
        most: as MOST_OPEN.
    """
    entering = Counter[str]()

    async def push_within_share(push: Push, body: Any, request: fastapi.Request, username: str | None) -> Any:
        # Not Gradio's own, which has the body as it came, twice, for as long as the call is open.
        bare = body.request = fastapi.Request(request.scope)
        person = owner_of(bare).person
        if entering[person] + sum(person_of(one) == person for one in open_events(queue)) >= most:
            words = (
                f"{most} calls from here are open already, the most for one: read their answers, then go on."
            )
            raise fastapi.HTTPException(429, words, AGAIN)
        known = queue.blocks.fns.get(body.fn_index)
        page = known is not None and known.api_visibility == "private"
        if memory_size((body.event_data, body.data if page else ())) > MOST_DATA:
            words = f"The call's data is larger than {MOST_DATA:,} bytes, the most that is kept of one."
            raise fastapi.HTTPException(413, words)
        entering[person] += 1
        try:
            success, call, _ = answer = await push(body, bare, username)
            event = queue.event_ids_to_events.get(str(call)) if success else None
            if event is not None and event.data is not None:
                del event.data.data[len(event.fn.inputs) :]  # nobody reads them
            return answer
        finally:
            entering[person] -= 1
            if not entering[person]:
                del entering[person]

    wrap_push(queue, lambda push: partial(push_within_share, push))
