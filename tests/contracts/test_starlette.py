"""What api/ mends in Starlette, and what it does beside Starlette's own, is still needed."""

from __future__ import annotations

import inspect
from typing import Any

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Mount, Route

from api.server.prefix_routes import PrefixMount, PrefixRoute
from tests.contracts.source import source

HERE = PlainTextResponse("here")


def matches(route: Mount | Route, path: str) -> bool:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "root_path": ""}
    return route.matches(scope)[0] is Match.FULL


def test_a_line_break_goes_past_a_route() -> None:
    assert not matches(Mount("/v1", HERE), "/v1/a\nb")
    assert not matches(Route("/file={path:path}", lambda _: HERE), "/file=a\nb")
    assert matches(PrefixMount("/v1", HERE), "/v1/a\nb")
    assert matches(PrefixRoute("/file={path:path}", lambda _: HERE), "/file=a\nb")


def test_the_body_limit_knows_neither_a_time_nor_another_answer_than_plain_text() -> None:
    # Why guard/bodies.py has its own: a body has to arrive within a time, whole, not compressed, below a
    # bound of its route, and each API refuses in its own shape.
    assert list(inspect.signature(RequestBodyLimitMiddleware).parameters) == ["app", "max_body_size"]
    assert 'PlainTextResponse("Content Too Large"' in source(
        "starlette.middleware.body_limit", "RequestBodyLimitResponder.__call__"
    )
