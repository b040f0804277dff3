"""Whatever is asked of whichever route, the server has an answer that it meant: no 5xx, and no traceback in
its log. 300 requests here, always the same; more, and others, by

    STEPWISE_CASES=20000 python -m pytest tests/security/test_fuzz.py --timeout 7200
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr

from api.auth.hub_login import HubLogin, Provider
from api.auth.passwords import Accounts
from api.guard.access import SMALL
from pipeline.engine import Engine
from tests.api.conftest import SHORT
from tests.conftest import serve
from tests.security.support.requests import Request, ask, requests
from tests.security.support.routes import every_route
from tests.support.mcp import ACCEPT, INITIALIZE
from tests.support.queues import queued
from tests.support.rest import TIMEOUT, call
from tests.support.services.openid import serve_openid
from tests.support.tiny import catalogue, entry, models_yaml
from ui.login_page import login_page, logout_page, password_page

CASES = int(os.environ.get("STEPWISE_CASES", "0"))
OPEN, EACH = (CASES, max(40, CASES // 10)) if CASES else (300, 40)
"""Requests to a server that is open to everyone, and of each kind of visitor to one that isn't."""
KEY, ANN = "a-key-0123456789", ("ann", "a horse: battery")
NOISE = re.compile(r"Traceback|\bfailed: |Exception in|Fatal error|never awaited|never retrieved")
"""What a log has where something happened that nobody foresaw."""

Routes = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Asked:
    """A server, its log, its routes, and what is real on it: how many inputs each of the page's functions
    takes, and the headers that mean something."""

    url: str
    log: Path
    routes: Routes
    functions: Mapping[int, int]
    real: Mapping[str, str]


@pytest.fixture(scope="module")
def routes(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Routes]:
    """Of a server without a login, with one, and with Hugging Face's."""
    folder = tmp_path_factory.mktemp("routes")
    logins = {
        "none": None,
        "password": Accounts([SecretStr(":".join(ANN))], password_page, logout_page),
        "hub": HubLogin(Provider("id", "secret"), (), login_page, logout_page),
    }
    with queued(Engine(catalogue(folder, entry(tiny_folder))), folder) as queue:
        return {name: every_route(queue, login) for name, login in logins.items()}


@pytest.fixture(scope="module")
def models(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that draws in milliseconds what a request happens to ask for."""
    return str(models_yaml(tmp_path_factory.mktemp("models"), entry(tiny_folder, limits=SHORT)))


@pytest.fixture(scope="module")
def everyones(
    routes: dict[str, Routes], models: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("everyones")
    with serve(folder, **limits(models)) as url:
        pictures, _ = call(url, "generate", {"prompt": "a fox", "steps": 1})
        picture = httpx.URL(pictures[0]["image"]["url"]).raw_path.decode()
        script = re.search(r'"\./(assets/[^"]+\.js)"', httpx.get(url, timeout=TIMEOUT).text)
        assert script is not None
        there = [("GET", picture), ("GET", f"/{script[1]}"), ("GET", "/static/img/logo.svg")] * 3
        yield asked(url, folder, [*routes["none"], *there], {})


@pytest.fixture(scope="module")
def closed(
    routes: dict[str, Routes], models: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("closed")
    closing = {"STEPWISE_LOGIN": ":".join(ANN), "STEPWISE_API_KEYS": KEY}
    with serve(folder, **limits(models), **closing) as url:
        yield asked(url, folder, routes["password"], {"Authorization": f"Bearer {KEY}"})


def limits(models: str) -> dict[str, str]:
    """One address asks for all: it may wait with everything that it happens to start, and fills no disk."""
    most = {"STEPWISE_MAX_WAITING": "10000", "STEPWISE_MAX_WAITING_EACH": "10000"}
    return {"STEPWISE_MODELS": models, "STEPWISE_KEEP_GB": "0.05", "STEPWISE_GRACE": "1", **most}


def asked(url: str, folder: Path, routes: Routes, key: dict[str, str]) -> Asked:
    page = httpx.get(f"{url}/config", auth=ANN if key else None, timeout=TIMEOUT).json()
    session = httpx.post(f"{url}/mcp", json=INITIALIZE, headers={"Accept": ACCEPT, **key}, timeout=TIMEOUT)
    real = {"Mcp-Session-Id": session.headers["mcp-session-id"], "Accept": ACCEPT, **key}
    functions = {one["id"]: len(one["inputs"]) for one in page["dependencies"]}
    return Asked(url, folder / "server.log", routes, functions, real)


def answered(asked: Asked, examples: int, always: tuple[tuple[str, str], ...] = ()) -> None:
    """Asks for so many things, and looks at the answers and at the log.

    Args:
        always: headers of every request.
    """

    @given(requests(asked.routes, asked.functions, asked.real, always))
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not CASES,
        suppress_health_check=[*HealthCheck],
    )
    def is_meant(request: Request) -> None:
        status, answer = ask(asked.url, request, TIMEOUT)
        assert status < 500, answer[:1000]
        # What is too long is refused before it has come, and who still sends then may lose the answer.
        cut = request.streams or not request.honest or len(request.body) > SMALL
        assert status or cut, "no answer"

    is_meant()
    assert httpx.get(f"{asked.url}/livez", timeout=TIMEOUT).status_code == 200
    lines = asked.log.read_text(errors="replace").splitlines()
    noise = next((number for number, line in enumerate(lines) if NOISE.search(line)), None)
    assert noise is None, "\n".join(lines[noise : noise + 100])


def test_every_route_answers_everything_as_it_means_to(everyones: Asked) -> None:
    answered(everyones, OPEN)
    assert call(everyones.url, "generate", {"prompt": "a fox", "steps": 1})[1]["phase"] == "finished"


def test_so_it_does_with_a_login_to_who_has_none(closed: Asked) -> None:
    answered(closed, EACH)


def test_so_it_does_with_a_login_to_who_has_one(closed: Asked) -> None:
    name, password = ANN
    form = {"username": name, "password": password}
    with httpx.Client(base_url=closed.url, timeout=TIMEOUT) as http:
        cookies = http.post("/login", data=form).raise_for_status().headers.get_list("set-cookie")
    cookie = "; ".join(one.partition(";")[0] for one in cookies)
    answered(closed, EACH, (("Cookie", cookie),))


def test_so_it_does_to_who_has_a_key(closed: Asked) -> None:
    answered(closed, EACH, (("Authorization", f"Bearer {KEY}"),))


@pytest.mark.skipif(not CASES, reason="one more server: only where STEPWISE_CASES asks for many requests")
def test_so_it_does_with_hugging_face_s_login(routes: dict[str, Routes], models: str, tmp_path: Path) -> None:
    with serve_openid() as provider:
        token = provider.add("hf_" + "a" * 30, "ann")
        settings = {"STEPWISE_LOGIN": "huggingface", **provider.environment(), **limits(models)}
        with serve(tmp_path, **settings) as url:
            begin = {"Authorization": f"Bearer {token}"}
            config = httpx.get(f"{url}/config", headers=begin, timeout=TIMEOUT).json()
            functions = {one["id"]: len(one["inputs"]) for one in config["dependencies"]}
            hub = Asked(url, tmp_path / "server.log", routes["hub"], functions, begin)
            answered(hub, EACH)
            answered(hub, EACH, tuple(begin.items()))
