"""Whatever GRADIO_ROOT_PATH is, and whether or not a proxy strips it, routes see one way to write a path; and
the cookies of the Hugging Face login stay below it."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from api.auth.browser_login import COOKIE
from api.auth.hub_login import HubLogin, Provider
from api.server.behind_proxy import BehindProxy
from ui.login_page import login_page, logout_page


async def where(request: Request) -> Response:
    return PlainTextResponse(request.url.path)


async def events(_: Request) -> Response:
    return StreamingResponse(
        iter(["data: 1\n\n"]), headers={"content-type": "text/event-stream; charset=utf-8"}
    )


@pytest.mark.parametrize(
    "root", ["", "/sd", "https://example.org/sd", "https://example.org", "/user/a%40b", "/a%20b", "/v1"]
)
def test_routes_and_mounts_answer_with_and_without_the_path(root: str) -> None:
    app = FastAPI(
        middleware=[Middleware(BehindProxy)],
        routes=[Route("/x", where), Mount("/mount", Starlette(routes=[Route("/{name:path}", where)]))],
    )
    app.root_path = root  # as Gradio sets it
    path = root.removeprefix("https://example.org")
    client = TestClient(app)
    for route in ("/x", "/mount/y", "/mount/y%2Fz", "/mount/y z"):
        answers = {client.get(address).text for address in (route, path + route)}
        assert len(answers) == 1
        assert answers.pop().startswith(unquote(path))
    assert client.get(f"{path}x/x").status_code == 404 or not path  # /sdx is not below /sd


def test_only_event_streams_are_told_apart() -> None:
    client = TestClient(BehindProxy(Starlette(routes=[Route("/events", events), Route("/x", where)])))
    stream, other = client.get("/events").headers, client.get("/x").headers
    assert (stream["x-accel-buffering"], stream["cache-control"]) == ("no", "no-cache, no-transform")
    assert "x-accel-buffering" not in other and "cache-control" not in other


@pytest.mark.parametrize(("root", "path"), [("", "/"), ("/sd", "/sd"), ("https://example.org/sd", "/sd")])
def test_the_hugging_face_logins_cookie_is_for_the_path_alone(root: str, path: str) -> None:
    login = HubLogin(Provider("id", "secret"), (), login_page, logout_page, root)
    answer = TestClient(Starlette(routes=login.routes())).post("/logout", follow_redirects=False)
    (cookie,) = answer.headers.get_list("set-cookie")
    assert COOKIE in cookie.partition("=")[0]
    assert f"Path={path};" in cookie
