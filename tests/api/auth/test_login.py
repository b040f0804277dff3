"""With STEPWISE_LOGIN every route but health and the login page asks who it is, and lets nobody guess on."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.route_utils import API_PREFIX
from gradio.routes import App
from gradio_client import Client
from pydantic import SecretStr

from api.auth.keys import access_notice
from api.auth.passwords import Accounts
from api.guard.access import PASSWORDS, Table
from pipeline.errors import RateLimited, SettingError
from settings import Settings
from tests.api.conftest import SHORT, Keyed
from tests.conftest import serve
from tests.support.mcp import INITIALIZE, initialize
from tests.support.rest import TIMEOUT
from tests.support.tiny import entry, models_yaml
from ui.login_page import logout_page, password_page

ANN, BOB = ("ann", "a horse: battery"), ("bób", "стапле")
KEY = "a-key-0123456789"
DRAW = {"prompt": "a fox", "size": "64x64", "steps": 1, "response_format": "url"}


@pytest.fixture(scope="module")
def closed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server that asks for a login. It believes a proxy on this machine, so that a test may come from an
    address of its own, and guess."""
    folder = tmp_path_factory.mktemp("closed")
    models = models_yaml(folder, entry(tiny_folder, limits=SHORT))
    login = f" {':'.join(ANN)}, {':'.join(BOB)} ,"
    with serve(
        folder,
        STEPWISE_MODELS=str(models),
        STEPWISE_LOGIN=login,
        STEPWISE_API_KEYS=KEY,
        STEPWISE_PROXIES="127.0.0.1",
    ) as url:
        yield Keyed(url, folder / "server.log")


@pytest.fixture(scope="module")
def http(closed: Keyed) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=closed.url, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture(scope="module")
def ann(closed: Keyed) -> Iterator[httpx.Client]:
    """Logged in on the page."""
    with httpx.Client(base_url=closed.url, timeout=TIMEOUT) as client:
        answer = client.post("/login", data={"username": ANN[0], "password": ANN[1]})
        assert answer.json() == {"success": True}
        yield client


def accounts_of(*logins: str) -> Accounts:
    return Accounts([SecretStr(login) for login in logins], password_page, logout_page)


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def paths() -> list[str]:
    """A path of every route of Gradio's and ours, its parameters filled in."""

    with gr.Blocks() as demo:
        gr.Markdown()
    app = App.create_app(demo)
    found = {
        "/v1/models",
        "/v1/images/generations",
        "/v1/openapi.json",
        "/mcp",
        "/mcp/",
        "/metrics",
        "/nothing",
    }
    routes = list(app.routes)
    while routes:
        route: Any = routes.pop()
        if (original := getattr(route, "original_router", None)) is not None:
            routes += original.routes
        elif hasattr(route, "path"):
            found.add(re.sub(r"{\w+(:\w+)?}", "1", route.path))
    return sorted(found)


def test_every_route_but_those_that_are_listed_asks_for_a_login(http: httpx.Client) -> None:
    asked = 0
    for path in paths():
        for method in ("GET", "POST", "DELETE"):
            if path == "/" or Table(PASSWORDS).find(path, method).who == "everyone":
                continue
            answer = http.request(method, path)
            assert answer.status_code == 401, (method, path)
            assert "asks for a login" in answer.text
            asked += 1
    assert asked > 3 * 40  # Gradio 6.31 has 60, and cancel and heartbeat are among them


@pytest.mark.parametrize("path", ["cancel", "heartbeat/x", "reset", "token", "app_id", "user"])
def test_so_do_those_that_gradio_leaves_open(http: httpx.Client, path: str) -> None:
    for method in ("GET", "POST"):
        assert http.request(method, f"{API_PREFIX}/{path}").status_code == 401


def test_the_login_page_is_open_and_needs_nothing_else(http: httpx.Client) -> None:
    page = http.get("/")
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    assert '<form action="login" method="post">' in page.text
    assert not re.findall(r"""(?:src|href)=["'](?!\./["'])""", page.text)


def test_a_refusal_has_the_shape_of_the_api_that_was_asked(http: httpx.Client) -> None:
    openai = http.post("/v1/images/generations", json=DRAW)
    assert openai.json()["error"]["type"] == "authentication_error"
    assert openai.headers["www-authenticate"].startswith("Basic ")
    assert http.post("/mcp", json=INITIALIZE).json()["error"]["message"].startswith("This server asks")
    gradio = http.post(f"{API_PREFIX}/queue/join", json={})
    assert gradio.json()["detail"].startswith("This server asks")
    assert "www-authenticate" not in gradio.headers  # a browser's own window would open over the page


def test_who_logs_in_on_the_page_may_do_what_the_page_does(ann: httpx.Client) -> None:
    assert ann.get("/config").json()["username"] == "ann"
    event = ann.post(f"{API_PREFIX}/call/models", json={"data": []}).json()["event_id"]
    assert '"id": "tiny"' in ann.get(f"{API_PREFIX}/call/models/{event}").text
    cancel = {"session_hash": "x", "fn_index": 0, "event_id": "x"}
    assert ann.post(f"{API_PREFIX}/cancel", json=cancel).status_code == 200


def test_a_cookie_that_another_sites_page_sends_along_is_not_enough(ann: httpx.Client) -> None:
    elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}
    assert ann.get("/config", headers=elsewhere).status_code == 401
    assert ann.post(f"{API_PREFIX}/call/models", json={"data": []}, headers=elsewhere).status_code == 401
    assert ann.get("/config", headers=elsewhere | {"sec-fetch-mode": "navigate"}).status_code == 200
    assert ann.get("/v1/models").status_code == 401  # nor is it for programs' routes


@pytest.mark.parametrize("who", [ANN, BOB], ids=["ann", "bob"])
def test_programs_log_in_with_http_basic_everywhere(
    http: httpx.Client, closed: Keyed, who: tuple[str, str]
) -> None:
    headers = basic(*who)
    assert http.get("/v1/models", headers=headers).status_code == 200
    url = http.post("/v1/images/generations", json=DRAW, headers=headers).json()["data"][0]["url"]
    assert http.get(url).status_code == 401
    assert http.get(url, headers=headers).content.startswith(b"\x89PNG")
    assert initialize(closed.url, http, **headers).status_code == 200
    assert http.get("/config", headers=headers).json()["username"] == who[0]


def test_a_key_is_enough_for_the_programs_routes_and_their_pictures_alone(http: httpx.Client) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    url = http.post("/v1/images/generations", json=DRAW, headers=headers).json()["data"][0]["url"]
    assert http.get(url, headers=headers).content.startswith(b"\x89PNG")
    assert http.get("/config", headers=headers).status_code == 401
    for wrong in (f"Bearer {KEY}x", "Bearer", f"Basic {KEY}", "Bearer none"):
        forwarded = {"authorization": wrong, "x-forwarded-for": "8.8.4.1"}
        assert http.get("/v1/models", headers=forwarded).status_code == 401
        assert http.get(url, headers=forwarded).status_code == 401


def test_gradio_client_logs_in_with_auth(closed: Keyed) -> None:
    client = Client(closed.url, auth=ANN, verbose=False)
    images, info = client.predict("a fox", steps=1, width=64, height=64, api_name="/generate")
    assert info["phase"] == "finished"
    assert Path(images[0]["image"]).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(Exception, match="credentials were not provided"):
        Client(closed.url, verbose=False)


def test_after_logging_out_the_cookie_is_worth_nothing(closed: Keyed) -> None:
    with httpx.Client(base_url=closed.url, timeout=TIMEOUT) as client:
        client.post("/login", data={"username": BOB[0], "password": BOB[1]})
        cookies = dict(client.cookies)
        assert client.get("/config").status_code == 200
        assert client.get("/logout").status_code == 200
        assert client.get("/config").status_code == 200  # it asks, and that was all
        assert client.post("/logout").headers["location"] == "./"
    answer = httpx.get(f"{closed.url}/config", cookies=cookies, timeout=TIMEOUT)
    assert answer.status_code == 401
    assert httpx.get(f"{closed.url}/config", headers=basic(*BOB), timeout=TIMEOUT).status_code == 200


def test_after_five_wrong_passwords_an_address_is_told_to_wait_and_no_other_is(http: httpx.Client) -> None:
    def guess(password: str, address: str) -> httpx.Response:
        form = {"username": "ann", "password": password}
        return http.post("/login", data=form, headers={"x-forwarded-for": address})

    statuses = [guess(f"guess {number}", "8.8.8.8").status_code for number in range(8)]
    assert statuses == [400] * 5 + [429] * 3
    late = guess(ANN[1], "8.8.8.8")  # the right one too: else the answer would tell it
    assert late.status_code == 429
    assert 1 <= int(late.headers["retry-after"]) <= 62
    assert "at most 5 a minute" in late.json()["detail"]
    # Programs' guesses are the same guesses.
    for path in ("/config", "/v1/models", "/mcp"):
        answer = http.get(path, headers=basic("ann", "another") | {"x-forwarded-for": "8.8.8.8"})
        assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
    assert guess(ANN[1], "8.8.4.4").status_code == 200


def test_guesses_that_come_at_once_all_count(http: httpx.Client, closed: Keyed) -> None:
    async def guess_all() -> list[int]:
        async with httpx.AsyncClient(base_url=closed.url, timeout=TIMEOUT) as client:
            client.headers["x-forwarded-for"] = "9.9.9.9"
            guesses = [client.get("/v1/models", headers=basic("ann", f"{n}")) for n in range(20)]
            forms = [{"username": "ann", "password": f"{n}"} for n in range(20)]
            guesses += [client.post("/login", data=form) for form in forms]
            return [answer.status_code for answer in await asyncio.gather(*guesses)]

    statuses = asyncio.run(guess_all())
    assert len([status for status in statuses if status in (400, 401)]) == 5
    assert statuses.count(429) == 35


def test_the_start_says_it_and_shows_no_password(closed: Keyed) -> None:
    log = closed.log.read_text()
    assert "one of the 2 in STEPWISE_LOGIN" in log
    assert "one of the 1 keys in STEPWISE_API_KEYS" in log
    assert not [secret for secret in (ANN[1], BOB[1], KEY) if secret in log]
    assert "STEPWISE_LOGIN" not in access_notice(())


def test_a_name_and_a_password_belong_together() -> None:
    accounts = accounts_of("ann:one", "bob:two")
    assert accounts.verify("ann", "one", "here")
    for name, password in (("ann", "two"), ("bob", "one"), ("", ""), ("ann:one", ""), ("ANN", "one")):
        assert not accounts.verify(name, password, name)
    with pytest.raises(RateLimited):
        for _ in range(6):
            accounts.verify("ann", "\ud800", "there")


def test_a_password_with_a_colon_admits_nobody_by_another_name(closed: Keyed) -> None:
    name, password = f"{ANN[0]}:a horse", " battery"  # joined, the very same as Ann's
    forwarded = {"x-forwarded-for": "8.8.4.2"}
    for given in ((name, password), (name, password.strip())):
        form = {"username": given[0], "password": given[1]}
        answer = httpx.post(f"{closed.url}/login", data=form, headers=forwarded, timeout=TIMEOUT)
        assert answer.status_code == 400, answer.text
        assert not answer.cookies


def test_names_and_passwords_are_compared_apart_as_they_are_written() -> None:
    accounts = accounts_of("ann:x:y", "b\u00f3b:caf\u00e9")
    assert accounts.verify("ann", "x:y", "here") == "ann"
    # However a keyboard composes the letters, and under the one name that the owner wrote.
    assert accounts.verify("bo\u0301b", "cafe\u0301", "here") == "b\u00f3b"
    wrong = [
        ("ann:x", "y"), ("ann:x:y", ""), ("", "ann:x:y"), ("ann", "x"), ("ann", ""), ("ann", "x:y "),
        ("ann ", "x:y"), (" ann", "x:y"), ("Ann", "x:y"), ("ann\x00", "x:y"),
        ("\uff41nn", "x:y"), ("bob", "caf\u00e9"),
        ("b\u00f3b", "cafe"), ("b\u00f3b", "x:y"), ("ann", "caf\u00e9"), ("\ud800", "\ud800"),
    ]  # fmt: skip
    for number, (name, password) in enumerate(wrong):
        assert accounts.verify(name, password, f"from {number}") is None, (name, password)


def test_who_logs_in_is_the_one_the_owner_named_however_the_name_was_typed(closed: Keyed) -> None:
    with httpx.Client(base_url=closed.url, timeout=TIMEOUT) as client:
        form = {"username": "  bo\u0301b ", "password": BOB[1]}
        assert client.post("/login", data=form).json() == {"success": True}
        assert client.get("/config").json()["username"] == BOB[0]
    headers = basic("bo\u0301b", BOB[1])
    answer = httpx.get(f"{closed.url}/config", headers=headers, timeout=TIMEOUT)
    assert answer.json()["username"] == BOB[0]
    for name in (" ann", "ann "):
        headers = basic(name, ANN[1]) | {"x-forwarded-for": "8.8.4.3"}
        assert httpx.get(f"{closed.url}/config", headers=headers, timeout=TIMEOUT).status_code == 401


@pytest.mark.parametrize(
    "value, words",
    [("ann", "login 1 is no"), ("ann:", "login 1"), (":secret", "login 1"), ("ann:secret,bob", "login 2"),
     (",", "no login"), ("ann:secret,ann:another one", "login 1"), ("ann :secret", "login 1"),
     ("b\u00f3b:secret,bo\u0301b:another one", "login 1"), ("an\tn:secret", "login 1"),
     ("ann:sec\nret", "login 1")],
)  # fmt: skip
def test_a_login_that_cant_be_used_stops_the_start_in_words_that_hide_it(
    monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("STEPWISE_LOGIN", value)
    with pytest.raises(SettingError, match=words) as refusal:
        Settings()
    assert "STEPWISE_LOGIN" in str(refusal.value)
    assert not [secret for secret in ("secret", "another one", "bob") if secret in str(refusal.value)]


def test_logins_are_separated_by_commas_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWISE_LOGIN", " ann:one:two , bob:three,")
    settings = Settings()
    assert [login.get_secret_value() for login in settings.login] == ["ann:one:two", "bob:three"]
    assert "three" not in repr(settings)
