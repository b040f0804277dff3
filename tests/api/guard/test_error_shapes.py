"""Whatever goes wrong on any route, and whatever raised it, the answer has the shape of the API that was
asked."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastapi.routing
import pytest
import starlette.routing
from gradio.routes import App
from starlette.testclient import TestClient

from api.auth.browser_login import LOGOUT
from api.auth.hub_login import BEGIN, CALLBACK, HubLogin, Provider
from api.gradio.patches import no_app
from api.guard.access import Table
from api.routes import app_options
from jobs.queue import Queue
from pipeline.engine import Engine
from tests.api.openai.openai_server import TINY
from tests.support.queues import queued
from tests.support.tiny import catalogue, entry
from ui.login_page import login_page, logout_page
from ui.page import build_page

MEANINGLESS = ("Traceback", "Error:", "Exception", "RuntimeError", "secret")


def app_of(queue: Queue, login: Any = None) -> App:
    demo = build_page(queue, login is not None)
    with no_app():
        demo.queue(api_open=False)
    return App.create_app(demo, app_kwargs=app_options(demo, queue, (), login))


@pytest.fixture(scope="module")
def app(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """One for the tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("shapes")
    with queued(Engine(catalogue(folder, entry(tiny_folder))), folder) as queue:
        yield app_of(queue)


def routes_of(app: App) -> Iterator[tuple[str, str]]:
    """Method and path of every route of the app's own table, its parameters filled in."""
    routes: list[Any] = list(app.routes)
    while routes:
        route = routes.pop()
        if (original := getattr(route, "original_router", None)) is not None:
            routes += original.routes
        elif isinstance(route, starlette.routing.Mount):
            yield from (("POST", "/v1/images/generations"), ("GET", "/v1/models"), ("GET", "/v1/models/tiny"))
            yield ("GET", "/v1/openapi.json")
        else:
            methods = route.methods or ("GET", "POST", "DELETE")
            path = re.sub(r"{\w+(:\w+)?}", "1", route.path)
            yield from ((method, path) for method in methods if method not in ("HEAD", "OPTIONS"))


def words_of(path: str, answer: Any) -> str:
    """What it says, if it has the shape of this path's API."""
    if path.startswith(("/login/huggingface", "/login/callback")):
        assert answer.headers["content-type"].startswith("text/html")
        return re.sub("<style.*?</style>", "", answer.text, flags=re.DOTALL)
    body = answer.json()
    if path.startswith("/v1"):
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
        return body["error"]["message"]
    if path.startswith("/mcp"):
        assert set(body) == {"jsonrpc", "id", "error"} and isinstance(body["error"]["code"], int), body
        return body["error"]["message"]
    if path.startswith(("/livez", "/readyz", "/metrics")):
        assert set(body) == {"status", "reason"}, body
        return body["reason"]
    assert set(body) == {"detail"}, body
    return f"{body['detail']}"


def break_routes(monkeypatch: pytest.MonkeyPatch, raised: Callable[[], BaseException]) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise raised()

    for kind in (starlette.routing.Route, fastapi.routing.APIRoute):
        monkeypatch.setattr(kind, "handle", fails)


def in_shape(app: App, expected: int) -> int:
    """How many routes answered so. Those that are closed, and of a call that there isn't, do with 404."""
    asked = 0
    with_errors = TestClient(app, raise_server_exceptions=False)
    jobs = next(one._id for one in app.get_blocks().fns.values() if one.api_name == "jobs")
    body = {"session_hash": "1", "fn_index": jobs, "event_id": "1", "data": []}  # as Gradio's routes want it
    for method, path in routes_of(app):
        answer = with_errors.request(method, path, json=body if method == "POST" else None)
        words = words_of(path, answer)
        assert words and not [one for one in MEANINGLESS if one in words], (path, words)
        if Table().find(path, method).who == "nobody":
            assert answer.status_code == 404, (method, path, words)
        elif answer.status_code != 404 or not path.startswith("/gradio_api/call/"):
            assert answer.status_code == expected, (method, path, words)
            asked += 1
            if expected == 503:
                assert int(answer.headers["retry-after"]) > 0, path
    return asked


def test_an_exception_that_nobody_foresaw_is_answered_in_the_shape_of_each_routes_api(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_routes(monkeypatch, lambda: RuntimeError("a secret"))
    assert in_shape(app, 500) > 40


def test_an_answer_that_is_cut_because_the_server_ends_says_in_each_routes_shape_when_to_come_again(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(tiny_queue)
    tiny_queue.drain(0)
    break_routes(monkeypatch, asyncio.CancelledError)
    assert in_shape(app, 503) > 40


def test_what_fails_in_front_of_the_routes_is_answered_in_shape_and_to_people_as_a_page(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(tiny_queue, HubLogin(Provider("client", "secret"), (), login_page, logout_page))
    break_routes(monkeypatch, lambda: RuntimeError("a secret"))

    async def fails(*_: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(HubLogin, "sent", fails)
    client = TestClient(app, raise_server_exceptions=False)
    for path in ("/v1/models", "/mcp", "/config", "/metrics", "/livez", BEGIN, CALLBACK, LOGOUT):
        answer = client.get(path)
        assert answer.status_code == 500, path
        if path != LOGOUT:
            assert "Something went wrong in the server" in words_of(path, answer)


@pytest.mark.parametrize("path", ["/v1/x", "/mcp/x", "/livez/x", "/metrics/x", "/gradio_api/x", "/login/x"])
def test_an_address_that_there_isnt_is_said_in_the_shape_of_its_api(app: App, path: str) -> None:
    client = TestClient(app, raise_server_exceptions=False)
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = client.request(method, path)
        assert answer.status_code in (404, 405), (method, path)
        assert words_of(path, answer)


def test_a_method_that_a_route_lacks_is_said_in_the_shape_of_its_api(app: App) -> None:
    client = TestClient(app, raise_server_exceptions=False)
    for path in {path for _, path in routes_of(app)} - {"/mcp", "/mcp/"}:  # whose transport says 406 and 400
        answer = client.request("PATCH", path)
        assert answer.status_code in (404, 405), path
        assert words_of(path, answer)


def test_a_stream_over_v1_that_breaks_ends_with_an_error_in_its_shape(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.openai.stream.Partials.of", lambda *_: 1 / 0)
    client = TestClient(app, raise_server_exceptions=False)
    answer = client.post("/v1/images/generations", json=TINY | {"stream": True, "steps": 2})
    assert answer.status_code == 200
    event, data = answer.text.strip().split("\n\n")[-1].split("\n")
    assert event == "event: error"
    error = json.loads(data.removeprefix("data: "))
    assert error["type"] == "error"
    assert (error["error"]["code"], error["error"]["type"]) == ("internal_error", "server_error")


def test_what_gets_past_all_handlers_is_logged_with_its_traceback(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_routes(monkeypatch, lambda: RuntimeError("why"))
    TestClient(app, raise_server_exceptions=False).get("/config")
    assert "GET" in caplog.text and "/config" in caplog.text
    assert "RuntimeError: why" in caplog.text
