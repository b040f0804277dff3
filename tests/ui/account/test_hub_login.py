"""With STEPWISE_LOGIN=huggingface every route but health asks for a Hugging Face account: people log in
through a browser, programs with a Hub token. The Hub is a stand-in on this machine
(tests/support/services/openid.py).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from gradio.route_utils import API_PREFIX
from gradio_client import Client
from openai import OpenAI
from playwright.sync_api import Browser, BrowserContext, Page, expect

from api.guard.access import HUGGING_FACE, Table
from tests.api.auth.test_login import paths
from tests.api.conftest import SHORT
from tests.conftest import free_port, serve
from tests.inside.sitecustomize import SCRIPTED
from tests.support.rest import TIMEOUT
from tests.support.services.openid import SECRET, OpenIdProvider, serve_openid
from tests.support.tiny import entry, models_yaml
from tests.ui.conftest import LAPTOP, PHONE
from tests.ui.studio import Studio

KEY = "a-key-0123456789"
DRAW = {"prompt": "a fox", "size": "64x64", "steps": 1, "response_format": "url"}
ANN, BOB, EVE = (f"hf_{name}{'0123456789' * 3}" for name in ("ann", "bob", "eve"))
OWN_OPEN = {"/login/huggingface", "/login/callback", "/logout"}


@dataclass(frozen=True)
class Guarded:
    """The server, its log, and the stand-in where one logs in."""

    url: str
    log: Path
    hub: OpenIdProvider

    def get(self, path: str, token: str = "", **headers: str) -> httpx.Response:
        if token:
            headers["authorization"] = f"Bearer {token}"
        return httpx.get(self.url + path, headers=headers, timeout=TIMEOUT)


@pytest.fixture(scope="module")
def guarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    models = models_yaml(folder, entry(tiny_folder, limits=SHORT))
    port = free_port()
    with serve_openid() as hub:
        hub.callback = f"http://127.0.0.1:{port}/login/callback"
        hub.add(ANN, "ann"), hub.add(BOB, "bob", "Foxes"), hub.add(EVE, "eve", "wolves")
        with serve(
            folder,
            port=port,
            STEPWISE_MODELS=str(models),
            STEPWISE_LOGIN="huggingface",
            STEPWISE_USERS="Ann, foxes",
            STEPWISE_PRIORITY="ann",
            STEPWISE_API_KEYS=KEY,
            STEPWISE_PROXIES="127.0.0.1",  # so that a test may come from an address of its own, and guess
            **hub.environment(),
            **SCRIPTED,
        ) as url:
            yield Guarded(url, folder / "server.log", hub)


@pytest.fixture
def browse(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    contexts: list[BrowserContext] = []

    def browse(**options: object) -> BrowserContext:
        contexts.append(chromium.new_context(**{"viewport": LAPTOP, **options}))  # type: ignore[arg-type]
        return contexts[-1]

    yield browse
    for context in contexts:
        context.close()


def log_in(page: Page, url: str) -> Studio:
    studio = Studio(page, url)
    page.goto(url)
    page.get_by_role("link", name="Sign in with Hugging Face").click()
    page.get_by_role("link", name="Authorize").click()
    expect(studio.draw_button).to_be_visible(timeout=60_000)
    page.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    return studio


def jobs(guarded: Guarded, token: str) -> list[str]:
    client = Client(guarded.url, token=token, verbose=False)
    return [job["job"] for job in client.predict(api_name="/jobs")]


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_one_logs_in_on_the_page_draws_as_oneself_and_logs_out(
    guarded: Guarded, browse: Callable[..., BrowserContext], size: dict[str, int]
) -> None:
    context = browse(viewport=size)
    studio = log_in(context.new_page(), guarded.url)
    page = studio.page
    assert page.url == f"{guarded.url}/"
    who = page.locator("#who")
    expect(who).to_contain_text("ann")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    box = who.get_by_role("button", name="Log out").bounding_box()
    assert box is not None and box["x"] + box["width"] <= size["width"]
    studio.draw("a fox")
    job = studio.job
    assert job in jobs(guarded, ANN)  # the same person, wherever they come from
    assert job not in jobs(guarded, BOB)
    with closing(sqlite3.connect(next(guarded.log.parent.rglob("jobs.sqlite")))) as store:
        kept_as = store.execute("SELECT person, first FROM jobs WHERE id = ?", [job]).fetchone()
    assert kept_as == ("user:ann", 1)  # STEPWISE_PRIORITY

    cookies = {cookie["name"]: cookie for cookie in context.cookies()}
    name = f"stepwise-login-{guarded.url.rpartition(':')[2]}"
    login = cookies[name]
    assert login["httpOnly"] and login["sameSite"] == "Lax" and not login["secure"]  # over http
    kept = {name: login["value"]}
    assert httpx.get(f"{guarded.url}/config", cookies=kept, timeout=TIMEOUT).json()["username"] == "ann"
    altered = {name: login["value"][:-1] + ("a" if login["value"][-1] != "a" else "b")}
    assert httpx.get(f"{guarded.url}/config", cookies=altered, timeout=TIMEOUT).status_code == 401
    elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    for path in ("/config", f"{API_PREFIX}/call/models/1"):
        answer = httpx.get(f"{guarded.url}{path}", cookies=kept, headers=elsewhere, timeout=TIMEOUT)
        assert answer.status_code == 401
    # As another site's picture or form would, say.
    for method in ("GET", "POST"):
        httpx.request(method, f"{guarded.url}/logout", cookies=kept, headers=elsewhere, timeout=TIMEOUT)
    httpx.get(f"{guarded.url}/logout", cookies=kept, timeout=TIMEOUT)
    # Nor is it for programs.
    assert httpx.get(f"{guarded.url}/v1/models", cookies=kept, timeout=TIMEOUT).status_code == 401
    assert httpx.get(f"{guarded.url}/config", cookies=kept, timeout=TIMEOUT).status_code == 200

    who.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("link", name="Sign in with Hugging Face")).to_be_visible()
    assert page.url == f"{guarded.url}/"
    assert httpx.get(f"{guarded.url}/config", cookies=kept, timeout=TIMEOUT).status_code == 401
    assert not studio.unexplained()


def test_a_page_whose_login_has_ended_leads_to_the_login_page(
    guarded: Guarded, browse: Callable[..., BrowserContext]
) -> None:
    page = log_in(browse().new_page(), guarded.url).page
    page.context.clear_cookies()
    page.evaluate("void window.stepwise.visit.answers()")
    expect(page.get_by_role("link", name="Sign in with Hugging Face")).to_be_visible()


def test_who_refuses_or_isnt_named_stays_on_the_login_page_which_says_so(
    guarded: Guarded, browse: Callable[..., BrowserContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = browse(extra_http_headers={"x-forwarded-for": "8.8.1.1"}).new_page()
    page.goto(guarded.url)
    button = page.get_by_role("link", name="Sign in with Hugging Face")
    button.click()
    page.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("Hugging Face didn't log you in")
    assert "<b>no</b>" not in page.content()

    monkeypatch.setattr(guarded.hub, "person", "eve")
    button.click()  # from here, too, it leads there
    page.get_by_role("link", name="Authorize").click()
    expect(page.get_by_role("alert")).to_contain_text("eve is not among the users")
    assert not [one for one in page.context.cookies() if "state" not in one["name"]]

    monkeypatch.setattr(guarded.hub, "organisations", ("foxes",))
    button.click()
    page.get_by_role("link", name="Authorize").click()
    expect(page.locator("#who")).to_contain_text("eve", timeout=60_000)


def test_in_a_frame_the_login_opens_in_a_tab_of_its_own_and_the_frame_looks_again(
    guarded: Guarded, browse: Callable[..., BrowserContext]
) -> None:
    page = browse().new_page()
    # As on huggingface.co, but of the same site: over http no browser keeps another's cookies in a frame.
    around = f'<iframe src="{guarded.url}/" style="width:1200px;height:780px"></iframe>'
    page.route("**/frame", lambda route: route.fulfill(body=around, content_type="text/html"))
    page.goto(f"{guarded.url}/frame")
    frame = page.frame_locator("iframe")
    with page.expect_popup() as opened:
        frame.get_by_role("link", name="Sign in with Hugging Face").click()
    opened.value.get_by_role("link", name="Authorize").click()
    expect(opened.value.locator("#who")).to_contain_text("ann", timeout=60_000)
    opened.value.close()
    # Headless Chromium hides no tab: its reader coming back is told to the page by hand.
    page.frames[1].evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(frame.locator("#who")).to_contain_text("ann", timeout=60_000)


def test_every_route_but_health_and_the_login_asks_who_it_is(guarded: Guarded) -> None:
    asked = 0
    with httpx.Client(base_url=guarded.url, timeout=TIMEOUT) as http:
        for path in {*paths(), "/assets/x.js", "/login", "/login_check"} - OWN_OPEN - {"/"}:
            for method in ("GET", "POST", "DELETE"):
                if Table(HUGGING_FACE).find(path, method).who == "everyone":
                    continue
                answer = http.request(method, path)
                assert answer.status_code == 401, (method, path)
                assert "login with Hugging Face" in answer.text
                asked += 1
        assert asked > 3 * 40
        assert http.get("/livez").status_code == http.get("/readyz").status_code == 200
        for method in ("GET", "HEAD"):
            page = http.request(method, "/")
            assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
        assert "gradio" not in http.get("/").text
        assert http.post("/").status_code == 401
        refused = http.post("/v1/images/generations", json=DRAW)
        assert refused.json()["error"]["type"] == "authentication_error"
        assert refused.headers["www-authenticate"].startswith("Bearer")
        # No place to go to can be named: the way back is always the page.
        out = http.post("/logout", params={"_target_url": "https://example.org", "next": "//example.org"})
        assert out.headers["location"] == "./"


def test_programs_log_in_with_a_hub_token(guarded: Guarded) -> None:
    before = len(guarded.hub.asked)
    client = Client(guarded.url, token=BOB, verbose=False)
    images, info = client.predict("a fox", steps=1, width=64, height=64, api_name="/generate")
    assert info["phase"] == "finished"
    assert Path(images[0]["image"]).read_bytes().startswith(b"\x89PNG")
    with OpenAI(base_url=f"{guarded.url}/v1", api_key=BOB, max_retries=0) as openai:
        answer = openai.images.generate(prompt="a fox", size="64x64", response_format="url")  # type: ignore
    url = answer.data[0].url
    assert httpx.get(url, timeout=TIMEOUT).status_code == 401
    assert guarded.get(url.removeprefix(guarded.url), BOB).content.startswith(b"\x89PNG")
    assert guarded.get("/config", BOB).json()["username"] == "bob"
    assert guarded.hub.asked[before:].count(BOB) <= 1  # the answer is kept

    assert guarded.get("/v1/models", KEY).status_code == 200
    assert guarded.get("/config", KEY).status_code == 401
    stranger = guarded.get("/v1/models", EVE)
    assert (stranger.status_code, stranger.json()["error"]["code"]) == (403, "not_let_in")
    assert "eve is not among" in stranger.json()["error"]["message"]
    assert guarded.get("/config", EVE).status_code == 403
    with pytest.raises(Exception, match="credentials"):
        Client(guarded.url, token=False, verbose=False)  # type: ignore[arg-type]


def test_tokens_that_arent_a_users_own_let_nobody_in(guarded: Guarded) -> None:
    # A token that ann gave to another app by OAuth says it is ann's; it is that app which sends it.
    app = guarded.hub.add("hf_oauth_" + "a" * 30, "ann", kind="oauth")
    disguised = guarded.hub.add("hf_" + "b" * 30, "ann", kind="oauth")
    guarded.hub.add(group := "hf_" + "c" * 30, "foxes")
    guarded.hub.tokens[group]["type"] = "org"
    for number, token in enumerate((app, disguised, group, "hf_", "hf_x", "hf_" + "é" * 20)):
        address = f"8.8.2.{number}".encode()
        headers = {
            b"authorization": f"Bearer {token}".encode(),
            b"x-forwarded-for": address,
        }
        answer = httpx.get(f"{guarded.url}/config", headers=headers, timeout=TIMEOUT)
        assert answer.status_code == 401, token
    assert app not in guarded.hub.asked  # it isn't shown to anyone


def test_wrong_tokens_are_limited_also_where_they_come_at_once(guarded: Guarded) -> None:
    def guess(number: int) -> int:
        token = f"hf_wrong{number:030}"
        return guarded.get("/v1/models", token, **{"x-forwarded-for": "9.9.9.9"}).status_code

    before = len(guarded.hub.asked)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(guess, range(24)))
    assert (statuses.count(401), statuses.count(429)) == (5, 19)
    assert len(guarded.hub.asked) - before == 5
    late = guarded.get("/config", f"hf_late{1:030}", **{"x-forwarded-for": "9.9.9.9"})
    assert late.status_code == 429 and 1 <= int(late.headers["retry-after"]) <= 62
    assert guarded.get("/v1/models", ANN, **{"x-forwarded-for": "9.9.9.8"}).status_code == 200


def test_a_hub_that_doesnt_answer_is_said_and_no_wrong_token(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded.hub, "refuse", 429)
    token = guarded.hub.add("hf_" + "d" * 30, "ann")
    for _ in range(7):
        answer = guarded.get("/v1/models", token, **{"x-forwarded-for": "8.8.3.3"})
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert "HTTP 429" in answer.text
    monkeypatch.setattr(guarded.hub, "refuse", None)
    assert guarded.get("/v1/models", token, **{"x-forwarded-for": "8.8.3.3"}).status_code == 200


def test_a_login_that_was_not_begun_here_or_is_forged_ends_with_nobody_logged_in(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def way(http: httpx.Client) -> str:
        there = http.get("/login/huggingface").headers["location"]
        assert there.startswith(f"{guarded.hub.url}/oauth/authorize?")
        assert "scope=openid+profile" in there
        asks = httpx.get(there, timeout=TIMEOUT).text
        return re.search(r'href="([^"]+)">Authorize', asks)[1].replace("&amp;", "&")  # type: ignore

    def nobody(answer: httpx.Response, status: int, words: str) -> None:
        assert (answer.status_code, words in answer.text) == (status, True)
        assert not re.search(r"stepwise-login-\d+=", answer.headers.get("set-cookie", ""))

    headers = {"x-forwarded-for": "8.8.5.5"}
    with httpx.Client(base_url=guarded.url, timeout=TIMEOUT, headers=headers) as http:
        link = way(http)
        # A stranger's link with a stranger's code would log its reader in as the stranger.
        nobody(httpx.get(link, headers=headers, timeout=TIMEOUT), 400, "another browser")
        assert http.get(link).status_code == 303
        nobody(http.get(link), 400, "another browser")  # once
        state = re.search(r"state=([^&]+)", way(http))[1]  # type: ignore
        nobody(http.get(f"/login/callback?code=guessed&state={state}"), 401, "none of its own")
        monkeypatch.setattr(guarded.hub, "forge", True)
        nobody(http.get(way(http)), 401, "none of its own")
        for _ in range(3):
            http.get(way(http))
        limited = http.get(way(http))
        assert limited.status_code == 429 and "at most 5 a minute" in limited.text
        assert int(limited.headers["retry-after"]) >= 1


def test_the_log_says_how_one_logs_in_and_shows_nobodys_secret(guarded: Guarded) -> None:
    log = guarded.log.read_text()
    assert "with Hugging Face (those in STEPWISE_USERS (2)): people on the page" in log
    assert guarded.hub.given
    assert not [secret for secret in (SECRET, KEY, ANN, BOB, EVE, *guarded.hub.given) if secret in log]
    data = b"".join(path.read_bytes() for path in guarded.log.parent.rglob("*") if path.is_file())
    assert not [secret for secret in (SECRET, ANN, BOB, *guarded.hub.given) if secret.encode() in data]
