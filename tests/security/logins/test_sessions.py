"""Logins of browsers against those who share a network, a machine or a name with their owners: whose they
are, how they are kept, and how they end.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import httpx2
import pytest
from gradio.route_utils import API_PREFIX
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.auth import browser_login
from api.auth.browser_login import Logins, Site
from api.auth.hub_login import HubLogin
from api.auth.passwords import Accounts
from tests.api.conftest import Keyed
from tests.conftest import STEPS
from tests.security.support.local_logins import ANN, BOB, PERSON, accounts, browser
from tests.support.browser import launch_chromium
from tests.support.rest import TIMEOUT
from tests.support.services.node import Node
from tests.ui.studio import Studio

HTTPS = {"x-forwarded-proto": "https"}


def app_of(login: Accounts | HubLogin, address: str = "http://testserver") -> TestClient:
    return TestClient(Starlette(routes=login.routes()), address, follow_redirects=False)


def cookie_of(answer: httpx.Response | httpx2.Response) -> tuple[str, str, set[str]]:
    """The one cookie that is set: its name, its value, its flags."""
    (line,) = answer.headers.get_list("set-cookie")
    first, *flags = line.split("; ")
    name, _, value = first.partition("=")
    return name, value, {flag.lower() for flag in flags}


# What strangers see.


def test_a_stranger_is_shown_a_form_and_learns_nothing_of_the_app(closed: Keyed) -> None:
    version = httpx.get(f"{closed.url}/config", auth=ANN, timeout=TIMEOUT).json()["version"]
    with browser(closed, None) as http:
        for method in ("GET", "HEAD"):
            assert http.request(method, "/").status_code == 200
        page = http.get("/").text
        wrong = http.post("/login", data={"username": "x", "password": "y"}, headers=PERSON).text
        for text in (page, wrong, http.get("/logout").text):
            found = [
                word for word in ("gradio", "tiny", "/v1", "_api", "config", version) if word in text.lower()
            ]
            assert not found
        paths = ("config", "config/", "openapi.json", "theme.css", "login_check", "assets/index.js")
        gradio = ("info", "info/", "openapi.json", "theme.css", "api_info", "user", "token", "app_id", "runs")
        for path in (*paths, *(f"gradio_api/{name}" for name in gradio)):
            answer = http.get(f"/{path}")
            assert answer.status_code == 401, path
            assert not [word for word in ("tiny", "generate", version) if word in answer.text]
        assert http.get("/login").headers["location"] == "./"


def test_the_page_says_what_went_wrong_in_words_and_keeps_nothing_that_was_typed(closed: Keyed) -> None:
    with browser(closed, None, **{"x-forwarded-for": "8.9.1.1"}) as http:
        for number in range(6):
            form = {"username": "<b>ann</b>", "password": f"<i>{number}</i>"}
            answer = http.post("/login", data=form, headers=PERSON)
            assert answer.status_code == (400 if number < 5 else 429)
            assert answer.headers["content-type"].startswith("text/html")
            assert 'role="alert"' in answer.text
            assert "<b>" not in answer.text and "<i>" not in answer.text
            assert answer.headers["cache-control"] == "no-store" and "set-cookie" not in answer.headers
        assert int(answer.headers["retry-after"]) >= 1
        assert "at most 5 a minute" in answer.text


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)"],
)
def test_no_request_says_where_a_login_or_a_logout_leads(closed: Keyed, target: str) -> None:
    named = {"next": target, "_target_url": target, "redirect": target, "return_to": target, "url": target}
    form = {"username": ANN[0], "password": ANN[1], **named}
    with browser(closed, None) as http:
        entered = http.post("/login", params=named, data=form, headers=PERSON)
        out = http.post("/logout", params=named, data=named)
        back = http.get("/login", params=named)
        assert [answer.headers["location"] for answer in (entered, out, back)] == ["./"] * 3
        asked = http.get("/logout", params=named)
        assert asked.status_code == 200 and "evil" not in asked.text
        assert http.get("/", headers={"x-forwarded-host": "evil.example"}).status_code == 421


# Cookies.


def test_a_logins_cookie_is_secure_behind_https_and_no_other_host_can_set_one_like_it() -> None:
    form = {"username": ANN[0], "password": ANN[1]}
    cases = {
        ("http://testserver", ""): ("stepwise-login", {"path=/", "samesite=lax"}),
        ("https://testserver", ""): ("__Host-stepwise-login", {"path=/", "samesite=none", "secure"}),
        ("https://testserver", "/sd"): ("__Secure-stepwise-login", {"path=/sd", "samesite=none", "secure"}),
        ("http://testserver:7861", ""): ("stepwise-login-7861", {"path=/", "samesite=lax"}),
    }
    for (address, root), (name, flags) in cases.items():
        app = app_of(accounts(":".join(ANN), site=Site(root)), address)
        found = cookie_of(app.post("/login", data=form))
        assert (found[0], found[2]) == (name, flags | {"httponly"})  # and ends with the browser
        ended = cookie_of(app.post("/logout"))
        assert (ended[0], ended[1]) == (name, '""') and "max-age=0" in ended[2] and flags <= ended[2]
    # A proxy that ends https says so; a Space's always does.
    behind = app_of(accounts(":".join(ANN))).post("/login", data=form, headers=HTTPS)
    space = app_of(accounts(":".join(ANN), site=Site(host="me-it.hf.space"))).post("/login", data=form)
    for answer in (behind, space):
        assert cookie_of(answer)[0] == "__Host-stepwise-login" and "secure" in cookie_of(answer)[2]


def test_by_https_a_cookie_without_the_prefix_lets_nobody_in(closed: Keyed) -> None:
    with browser(closed, ANN, **HTTPS) as http:
        ((name, value),) = http.cookies.items()
    assert name.startswith("__Host-")
    plain = {name.removeprefix("__Host-"): value}
    with browser(closed, None, **HTTPS) as http:
        assert http.get("/config", headers={"cookie": f"{name}={value}"}).status_code == 200
        assert http.get("/config", cookies=plain).status_code == 401


def test_a_cookie_that_was_there_before_the_login_isnt_taken_over(closed: Keyed) -> None:
    with browser(closed) as http:
        ((name, first),) = http.cookies.items()
        assert len(base64.urlsafe_b64decode(first + "=")) == 32  # bytes that nobody guesses
    planted = "planted-by-a-stranger-0123456789-0123456789"
    with browser(closed, None) as http:
        for before in (planted, first):
            answer = http.post(
                "/login",
                data={"username": BOB[0], "password": BOB[1]},
                headers={"cookie": f"{name}={before}"},
            )
            after = cookie_of(answer)[1]
            assert after not in (planted, first)
            assert http.get("/config", headers={"cookie": f"{name}={before}"}).status_code == 401
            known = http.get("/config", headers={"cookie": f"{name}={after}"}).json()
            assert known["username"] == BOB[0]


@pytest.mark.parametrize("kind", ["", "unsecure-"])
def test_gradios_own_cookie_lets_nobody_in(closed: Keyed, kind: str) -> None:
    token = httpx.get(f"{closed.url}{API_PREFIX}/token", auth=ANN, timeout=TIMEOUT).json().get("token")
    page = httpx.get(closed.url, auth=ANN, timeout=TIMEOUT)
    assert "access-token" not in page.headers.get("set-cookie", "")
    # Whatever the server's own id is: it isn't told, and isn't looked at.
    assert httpx.get(f"{closed.url}/config", cookies={f"access-token-{kind}": str(token)}).status_code == 401


# Who logs in more often than others.


def test_who_logs_in_ten_thousand_times_logs_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    logins = Logins()
    ann, past = logins.begin("ann", 60), logins.begin("bob", 0)
    for _ in range(browser_login.MOST_LOGINS + 1):
        last = logins.begin("eve", 60)
    assert (logins.name(ann), logins.name(last)) == ("ann", "eve")
    monkeypatch.setattr(browser_login, "MOST_LOGINS", browser_login.MOST_EACH + 20)
    crowd = [logins.begin(f"user {number}", 60) for number in range(60)]
    assert logins.name(ann) == "ann" and logins.name(past) is None
    assert all(logins.name(token) for token in crowd)
    assert logins.name(last) == "eve"  # her oldest went


def test_a_login_ends_in_its_time_and_what_is_within_it_too() -> None:
    async def last() -> None:
        logins = Logins()
        for end in (None, logins.end):
            token = logins.begin("ann", 0.05 if end is None else 600)
            session = logins.session(token)
            assert session is not None
            if end:
                asyncio.get_running_loop().call_later(0.05, end, token)
            with pytest.raises(TimeoutError):
                async with session.lasting():
                    await asyncio.sleep(60)
            assert session.over and logins.name(token) is None

    asyncio.run(last())


# Logging out.


def test_logging_out_ends_this_browsers_login_and_its_streams_and_no_other(closed: Keyed) -> None:
    with browser(closed) as here, browser(closed) as there, browser(closed, BOB) as other:
        ended: dict[str, str] = {}

        def follow(name: str, http: httpx.Client, path: str) -> threading.Thread:
            opened = threading.Event()

            def read() -> None:
                with http.stream("GET", f"{API_PREFIX}{path}") as answer:
                    opened.set()
                    ended[name] = ""
                    for _ in answer.iter_raw():
                        pass
                    ended[name] = "in good order"

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            assert opened.wait(TIMEOUT)
            return thread

        beats = [follow("here", here, "/heartbeat/here"), follow("there", there, "/heartbeat/there")]
        STEPS[closed.url].hold(1)
        drawing = {"prompt": "a fox", "steps": 2, "width": 64, "height": 64}
        event = here.post(f"{API_PREFIX}/call/v2/generate", json=drawing).json()["event_id"]
        beats.append(follow("drawing", here, f"/call/generate/{event}"))
        with httpx.Client(base_url=closed.url, timeout=TIMEOUT, cookies=here.cookies) as tab:
            assert tab.post("/logout").status_code == 303
        for thread in (beats[0], beats[2]):
            thread.join(30)
        assert ended == {"here": "in good order", "there": "", "drawing": "in good order"}
        STEPS[closed.url].go_on()
        assert here.get("/config").status_code == 401
        assert here.post(f"{API_PREFIX}/call/v2/generate", json=drawing).status_code == 401
        assert there.get("/config").json()["username"] == ANN[0]  # on her other machine
        assert other.get("/config").json()["username"] == BOB[0]
        assert there.post("/logout").status_code == 303
        beats[1].join(30)
    log = closed.log.read_text()
    assert "Traceback" not in log and "ASGI" not in log


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = launch_chromium(playwright)
        yield chromium
        chromium.close()


def log_in(page: Page, url: str, who: tuple[str, str]) -> Studio:
    page.goto(url)
    page.get_by_label("Name").fill(who[0])
    page.get_by_label("Password").fill(who[1])
    page.get_by_role("button", name="Log in").click()
    studio = Studio(page, url)
    expect(studio.draw_button).to_be_visible(timeout=60_000)
    page.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    return studio


@pytest.mark.browser
def test_in_a_browser_one_logs_out_in_every_tab_and_leaves_nothing_behind(
    closed: Keyed, chromium: Browser
) -> None:
    context = chromium.new_context()
    first = log_in(context.new_page(), closed.url, ANN)
    second = Studio(context.new_page(), closed.url).open()
    for tab in (first, second):
        tab.prompt.fill("nobody else's business")
    first.page.locator("#who").get_by_role("button", name="Log out").click()
    for tab in (first, second):
        expect(tab.page.get_by_label("Password")).to_be_visible()
        assert tab.page.evaluate("Object.values(sessionStorage).join()") == ""
    # A tab that heard nothing of it: what it asks for is refused, and it leads to the login page.
    log_in(first.page, closed.url, ANN)
    second.open()
    second.page.evaluate("window.BroadcastChannel = undefined")
    assert context.request.post(f"{closed.url}/logout").ok
    second.draw_button.click()
    for tab in (second, first):  # whose page then tells the others
        expect(tab.page.get_by_label("Password")).to_be_visible()
    # One who logs in as somebody else is that in all tabs.
    log_in(first.page, closed.url, ANN)
    second.open()
    form = {"username": BOB[0], "password": BOB[1]}
    assert context.request.post(f"{closed.url}/login", form=form).ok
    first.page.reload()
    expect(second.page.locator("#who")).to_contain_text(BOB[0])
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_page_fits_a_phone_and_says_whats_wrong(
    closed: Keyed, chromium: Browser, scheme: str
) -> None:
    headers = {"x-forwarded-for": f"8.9.4.{len(scheme)}"}
    for width, height in ((1280, 800), (390, 844)):
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            extra_http_headers=headers,
        )
        page = context.new_page()
        page.goto(closed.url)
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("don't belong together")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.url == f"{closed.url}/login"
        page.reload()
        context.close()


# Programs.


def test_gradios_clients_still_log_in_with_a_name_and_a_password(
    closed: Keyed, node: Node, tmp_path: Path
) -> None:
    client = Client(closed.url, auth=ANN, verbose=False)
    assert client.predict(api_name="/models")
    with pytest.raises(Exception, match="credentials were not provided"):
        Client(closed.url, verbose=False)
    with pytest.raises(ValueError, match="Could not login"):
        Client(closed.url, auth=("ann", "wrong"), verbose=False)
    script = """import { Client } from "@gradio/client";
const app = await Client.connect(process.argv[2], { auth: JSON.parse(process.argv[3]) });
console.log(JSON.stringify((await app.predict("/models", [])).data));
process.exit(0);"""
    assert "tiny" in node.run(script, tmp_path, closed.url, json.dumps(ANN))
