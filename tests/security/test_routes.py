"""One table has every route there is: what it doesn't have is refused, and docs/login-and-security.md prints
it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gradio.routes import App
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from api.auth.hub_login import HubLogin, Provider
from api.auth.login import Login
from api.auth.passwords import Accounts
from api.gradio.patches import no_app
from api.guard.access import HUGGING_FACE, PASSWORDS, UNLISTED, Access, Table
from api.routes import app_options
from jobs.queue import Queue
from tests.conftest import ROOT
from tests.security.support.routes import every_route
from ui.login_page import login_page, logout_page, password_page
from ui.page import build_page

SECURITY = ROOT / "docs" / "login-and-security.md"


def make_login(kind: str) -> Login | None:
    if kind == "passwords":
        return Accounts([SecretStr("ann:secret")], password_page, logout_page)
    return (
        HubLogin(Provider("client", "secret"), (), login_page, logout_page) if kind == "huggingface" else None
    )


@pytest.mark.parametrize("kind", ["none", "passwords", "huggingface"])
def test_the_table_has_every_route_that_the_app_has_and_no_other(tiny_queue: Queue, kind: str) -> None:
    login = make_login(kind)
    table = Table(login.access) if login else Table()
    used = set()
    found = every_route(tiny_queue, login)
    assert len(found) > 90
    for method, path in found:
        access = table.find(re.sub(r"{\w+(:\w+)?}", "1", path), method)
        assert access is not UNLISTED, (method, path)
        # Starlette adds HEAD to every GET of its own routes.
        assert access.allows(method) or method == "HEAD", (method, path, access)
        used.add(access)
    unused = {access for access in table.routes if access not in used and access.methods != ("*",)}
    assert not [access for access in unused if access.who != "nobody"], unused


def test_a_route_that_isnt_in_the_table_is_refused(tiny_queue: Queue) -> None:
    demo = build_page(tiny_queue)
    with no_app():
        demo.queue(api_open=False)
    options = app_options(demo, tiny_queue)

    async def forgotten(_: Any) -> PlainTextResponse:
        raise AssertionError("never asked")

    options["routes"].insert(0, Route("/forgotten", forgotten))
    http = TestClient(App.create_app(demo, app_kwargs=options))
    for path in ("/forgotten", "/forgotten/", "/gradio_api/forgotten", "/FORGOTTEN"):
        assert http.get(path).status_code == 404
    assert http.delete("/config").status_code == 405
    assert http.delete("/config").headers["allow"] == "GET"


def rows() -> list[tuple[str, ...]]:
    """docs/login-and-security.md's table of routes: its rows' cells."""
    text = SECURITY.read_text(encoding="utf-8")
    table = text[text.index("| Route ") :].split("\n\n")[0]
    return [tuple(cell.strip(" `") for cell in line.split("|")[1:-1]) for line in table.splitlines()[2:]]


def row(access: Access) -> tuple[str, ...]:
    methods = "any" if access.methods == ("*",) else " ".join(access.methods)
    size = f"{access.most_bytes // 1024:,} KB"
    if access.who == "nobody":
        return access.path, methods, "nobody", "", "", ""
    return access.path, methods, access.who, access.pages, size, access.often


def test_the_documentation_prints_the_table_as_it_is() -> None:
    known = dict.fromkeys((*Table(PASSWORDS).routes, *Table(HUGGING_FACE).routes))
    assert sorted(rows()) == sorted(row(access) for access in known)
