"""In a real Chromium, another site's page gets nothing out of a visitor's browser, nor does it by a name that
it makes point here; and the server's own page does all that it does, under each of the server's names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Frame,
    FrameLocator,
    Page,
    Response,
    expect,
    sync_playwright,
)

from tests.api.conftest import SHORT
from tests.conftest import STEPS, serve
from tests.security.support.other_site import OtherSite, other_site
from tests.support.browser import EVERYWHERE, launch_chromium
from tests.support.node import Node
from tests.support.rest import TIMEOUT, read_figures
from tests.support.tiny import entry, models_yaml
from tests.ui.studio import SLOW, NamedStudio, Studio

pytestmark = pytest.mark.browser

ATTACK = (Path(__file__).parent / "attack.js").read_text(encoding="utf-8")
ANN, BOB = ("ann", "a horse: battery"), ("bob", "another word")
NAME = "draw.example.org"
NAMES = ("127.0.0.1", "gpu-box", NAME)
"""Of the server's. A browser trusts the first as it does https; to others it sends no Sec-Fetch-Site."""
EVIL, FRIEND = "evil.example", "friend.example"
DRAW = {"prompt": "a stolen fox", "steps": 1, "seed": 7}
SENDS: list[dict[str, Any]] = [
    {"path": "/gradio_api/call/v2/generate", "body": json.dumps(DRAW | {"width": 64, "height": 64})},
    {"path": "/gradio_api/call/generate", "body": json.dumps({"data": ["a stolen fox", *[None] * 9]})},
    {
        "path": "/gradio_api/queue/join",
        "body": json.dumps({"data": ["a stolen fox", *[None] * 9], "fn_index": 1, "session_hash": "stolen"}),
    },
    {"path": "/gradio_api/cancel", "body": json.dumps({"session_hash": "x", "fn_index": 1, "event_id": "x"})},
    {"path": "/v1/images/generations", "body": json.dumps(DRAW | {"size": "64x64"})},
    {"path": "/mcp", "body": json.dumps({"jsonrpc": "2.0", "id": 0, "method": "tools/list"})},
    {"path": "/login", "body": "username=bob&password=another+word"},
    {"path": "/logout", "body": "{}"},
]
READS = [
    "/config",
    "/gradio_api/info",
    "/gradio_api/user",
    "/v1/models",
    "/v1/openapi.json",
    "/metrics",
]
STREAMS = ["/gradio_api/queue/data?session_hash=stolen", "/gradio_api/heartbeat/stolen"]
FIELDS = {"username": BOB[0], "password": BOB[1]}


@pytest.fixture(scope="module")
def site() -> Iterator[OtherSite]:
    with other_site() as site:
        yield site


@pytest.fixture(scope="module")
def guarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that asks for a login."""
    folder = tmp_path_factory.mktemp("guarded")
    settings = {
        "STEPWISE_MODELS": str(models_yaml(folder, entry(tiny_folder, limits=SHORT))),
        "STEPWISE_LOGIN": ",".join(map(":".join, (ANN, BOB))),
        "STEPWISE_HOSTS": NAME,
        "STEPWISE_PROXIES": "127.0.0.1",  # there may be one, and browsers on the same machine
    }
    with serve(folder, **settings) as url:
        yield port_of(url)


@pytest.fixture(scope="module")
def unguarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, site: OtherSite) -> Iterator[int]:
    """The port of a server that is open to everyone, and lets a friend's pages call it and frame it."""
    folder = tmp_path_factory.mktemp("unguarded")
    settings = {
        "STEPWISE_MODELS": str(models_yaml(folder, entry(tiny_folder, limits=SHORT))),
        "STEPWISE_HOSTS": NAME,
        "STEPWISE_PROXIES": "127.0.0.1",  # there may be one, and browsers on the same machine
        "STEPWISE_ORIGINS": site.url(FRIEND),
        "STEPWISE_FRAMES": site.url(FRIEND),
    }
    with serve(folder, **settings) as url:
        yield port_of(url)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright, EVERYWHERE)
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[BrowserContext]:
    """Somebody's, who has been nowhere yet."""
    context = chromium.new_context()
    context.set_default_timeout(SLOW)
    yield context
    context.close()


class Framed:
    """The page in a frame, for Studio: what is done to a page, done to the frame; events are the tab's."""

    def __init__(self, page: Page, frame: Frame) -> None:
        self._page, self._frame = page, frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame if hasattr(self._frame, name) and name != "on" else self._page, name)


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def figures(port: int) -> dict[tuple[str, ...], float]:
    """How many jobs there are, and were."""
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", auth=ANN, timeout=TIMEOUT)
    return {name: n for name, n in read_figures(answer.text).items() if name[0].startswith("stepwise_jobs")}


def jobs(port: int) -> list[Any]:
    """Those of who asks from this machine, and of Ann."""
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}/gradio_api/call/", timeout=TIMEOUT, auth=ANN
    ) as http:
        event = http.post("jobs", json={"data": []}).json()["event_id"]
        return json.loads(http.get(f"jobs/{event}").text.rpartition("data: ")[2])[0]


def attack(page: Page, victim: str, reads: Sequence[str] = (*READS, *STREAMS)) -> list[list[str]]:
    sends = [{"fields": FIELDS, **send} for send in SENDS]
    return page.evaluate(ATTACK, {"victim": victim, "reads": list(reads), "sends": sends})


def logged_in(browser: BrowserContext, url: str, account: tuple[str, str] = ANN) -> None:
    """Logs in with this browser, as the server's own page does."""
    page = at(browser, f"{url}/robots.txt")
    page.evaluate(
        "form => fetch('login', { method: 'POST', body: new URLSearchParams(form) })",
        {"username": account[0], "password": account[1]},
    )
    page.close()
    assert who(browser, url) == account[0]


def who(browser: BrowserContext, url: str) -> str | None:
    """Who this browser is to the server."""
    page = at(browser, f"{url}/robots.txt")
    config = page.evaluate("fetch('config').then((answer) => answer.json())")
    page.close()
    return config.get("username")


def at(browser: BrowserContext, url: str) -> Page:
    """A tab with a page that has no script of its own."""
    page = browser.new_page()
    page.goto(url)
    return page


@pytest.mark.parametrize("name", NAMES)
def test_another_sites_page_gets_nothing_by_the_login_of_its_visitor(
    browser: BrowserContext, site: OtherSite, guarded: int, name: str
) -> None:
    victim, answers = f"http://{name}:{guarded}", list[Response]()
    logged_in(browser, victim)
    png = httpx.post(
        f"{victim.replace(name, '127.0.0.1')}/v1/images/generations",
        json=DRAW | {"prompt": "mine", "size": "64x64", "response_format": "url"},
        auth=ANN,
        timeout=TIMEOUT,
    ).json()["data"][0]["url"]
    before, mine = figures(guarded), jobs(guarded)
    browser.on("response", lambda answer: answers.append(answer))
    reads = [*READS, *STREAMS, urlsplit(png).path]
    # The second is the same site to the browser, which sends it the cookies: ports don't count for it.
    for other in (site.url(EVIL), site.url(name)):
        site.asked.clear()
        page = at(browser, other)
        # Over plain http a picture that is asked for without a referrer is nobody's page's; its script still
        # can't read it.
        hides = other != site.url(EVIL) and name != "127.0.0.1"
        assert attack(page, victim, reads[:-1] if hides else reads) == []
        assert ("cookie" in site.asked[0]) == (other != site.url(EVIL))
    assert ("sec-fetch-site" in site.asked[0]) == (name == "127.0.0.1")
    assert (figures(guarded), jobs(guarded)) == (before, mine)
    assert who(browser, victim) == "ann"
    # A browser would open its own window for a password, and then send it for every page.
    refused = [answer for answer in answers if answer.status == 401]
    assert refused and not [answer.url for answer in refused if answer.header_value("www-authenticate")]


@pytest.mark.parametrize("name", NAMES)
def test_nor_by_a_password_that_the_browser_remembers(
    browser: BrowserContext, site: OtherSite, guarded: int, name: str
) -> None:
    victim, before, mine = f"http://{name}:{guarded}", figures(guarded), jobs(guarded)
    for other in (site.url(EVIL), site.url(name)):
        page = at(browser, other)
        # As the browser's network adds it: its pages' scripts need not ask for it.
        page.set_extra_http_headers({"Authorization": httpx.BasicAuth(*ANN)._auth_header})
        assert attack(page, victim) == []
    assert (figures(guarded), jobs(guarded)) == (before, mine)
    assert who(browser, victim) is None  # nobody was logged in


@pytest.mark.parametrize("name", NAMES)
def test_nor_from_a_server_that_is_open_to_everyone(
    browser: BrowserContext, site: OtherSite, unguarded: int, name: str
) -> None:
    before, mine = figures(unguarded), jobs(unguarded)
    others = [site.url(EVIL)]
    if name != "127.0.0.1":  # pages on the visitor's own machine may
        others.append(site.url(name))
    for other in others:
        page = at(browser, other)
        assert attack(page, f"http://{name}:{unguarded}", ["/", *READS, *STREAMS]) == []
    assert (figures(unguarded), jobs(unguarded)) == (before, mine)


def test_nor_by_a_name_of_its_own_that_it_makes_point_here(
    browser: BrowserContext, site: OtherSite, guarded: int, unguarded: int
) -> None:
    rebind = """async ([url, headers]) => {
      const one = (path, more) => fetch(url + path, { headers, ...more })
        .then(async (answer) => [answer.status, await answer.text()], () => null);
      const json = { method: "POST", body: '{"prompt": "a stolen fox"}' };
      headers["Content-Type"] = "application/json";
      return [await one("/config"), await one("/config", { referrerPolicy: "no-referrer" }),
              await one("/gradio_api/call/v2/generate", json), await one("/v1/images/generations", json)];
    }"""
    for port in (guarded, unguarded):
        before = figures(port)
        victim = f"http://{EVIL}:{port}"
        page = at(browser, f"{victim}/robots.txt")  # to the browser this is the attacker's page
        for said in ({}, *({"X-Forwarded-Host": host} for host in ("localhost", f"127.0.0.1:{port}", NAME))):
            found = page.evaluate(rebind, [victim, said])
            assert [status for status, _ in found] == [421] * 4, said
        found = attack(page, victim, ["/", *READS, *STREAMS])
        assert not [text for _, _, text in found if not text.startswith("This server isn't known by this")]
        assert figures(port) == before


# What the server's own page does.


def log_in(page: Page) -> None:
    page.get_by_label("Name").or_(page.get_by_label("Username")).fill(ANN[0])
    page.get_by_label("Password").fill(ANN[1])
    page.get_by_role("button", name=re.compile("^Log ?in$", re.IGNORECASE)).click()


def draws_and_stops(tab: Studio) -> bytes:
    """Draws, and stops another drawing: the first one's pixels."""
    steps = STEPS[f"http://127.0.0.1:{port_of(tab.url)}"]
    tab.draw("a fox")
    shown = tab.shown().tobytes()
    steps.hold(1)
    tab.prompt.fill("a wolf")
    tab.draw_button.click()
    tab.wait_for_step(1)
    tab.stop_button.click()
    tab.wait_for("stopped")
    steps.go_on()
    return shown


@pytest.mark.parametrize("name", NAMES)
def test_the_page_logs_in_draws_stops_remembers_and_logs_out(
    browser: BrowserContext, guarded: int, name: str
) -> None:
    tab = NamedStudio(browser.new_page(), f"http://{name}:{guarded}")
    tab.page.goto(tab.url)
    log_in(tab.page)
    expect(tab.draw_button).to_be_visible(timeout=SLOW)
    tab.page.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    shown = draws_and_stops(tab)
    tab.page.reload()
    expect(tab.draw_button).to_be_visible()
    tab.history.last.click()
    tab.wait_for("finished")
    assert tab.shown().tobytes() == shown
    assert who(browser, tab.url) == "ann"
    out = tab.page.locator("#who")
    out.get_by_role("link", name="Log out").or_(out.get_by_role("button", name="Log out")).click()
    expect(tab.page.get_by_label("Password")).to_be_visible(timeout=SLOW)
    assert who(browser, tab.url) is None


def test_a_tab_that_the_server_doesnt_know_any_more_says_why(browser: BrowserContext, unguarded: int) -> None:
    tab = NamedStudio(browser.new_page(), f"http://gpu-box:{unguarded}").open()
    # As if the owner had started it again, without this name.
    tab.page.set_extra_http_headers({"X-Forwarded-Host": "old.example.org"})
    tab.prompt.fill("a fox")
    tab.draw_button.click()
    expect(tab.notes).to_contain_text('421: This server isn\'t known by the name "old.example.org"')
    expect(tab.notes).to_contain_text("STEPWISE_HOSTS")


def test_a_person_at_another_name_is_shown_words_and_the_setting(
    browser: BrowserContext, guarded: int, unguarded: int
) -> None:
    for port in (guarded, unguarded):
        page = at(browser, f"http://my-server.example.com:{port}/")
        expect(page.get_by_role("heading")).to_have_text("This server isn't known by this address")
        expect(page.get_by_role("code")).to_have_text("STEPWISE_HOSTS=my-server.example.com")
        words = page.evaluate("fetch('config').then((answer) => answer.json())")["detail"]
        assert words.startswith(f'This server isn\'t known by the name "my-server.example.com:{port}".')


# Frames.


def framed(browser: BrowserContext, site: str, url: str) -> FrameLocator:
    page = at(browser, site)
    page.evaluate(
        """(src) => document.body.append(Object.assign(document.createElement("iframe"), {
          src, id: "framed", style: "width: 1200px; height: 900px", onload: () => window.loaded = true }))""",
        url,
    )
    page.wait_for_function("window.loaded")
    return page.frame_locator("#framed")


@pytest.mark.parametrize("name", NAMES)
def test_a_site_that_the_owner_didnt_name_cant_show_the_page_in_a_frame(
    browser: BrowserContext, site: OtherSite, guarded: int, unguarded: int, name: str
) -> None:
    for port, other in ((guarded, EVIL), (unguarded, EVIL), (guarded, FRIEND)):
        frame = framed(browser, site.url(other), f"http://{name}:{port}/")
        expect(frame.locator("#main-frame-error")).to_be_attached()  # Chromium's own page


@pytest.mark.parametrize("name", NAMES)
def test_in_a_frame_of_a_site_that_he_named_the_page_draws_and_stops(
    browser: BrowserContext, site: OtherSite, unguarded: int, name: str
) -> None:
    framed(browser, site.url(FRIEND), f"http://{name}:{unguarded}/")
    page = browser.pages[-1]
    (frame,) = [one for one in page.frames if one != page.main_frame]
    tab = NamedStudio(Framed(page, frame), f"http://{name}:{unguarded}")  # type: ignore[arg-type]
    expect(tab.draw_button).to_be_visible()
    frame.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    draws_and_stops(tab)
    frame.goto(tab.url)  # Chromium lets a frame of another site keep nothing: it starts anew
    expect(tab.draw_button).to_be_visible()
    frame.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
    draws_and_stops(tab)


# Gradio's client in a page of another site.

PAGE = """<!doctype html><p id="said"></p><script type="module">
import { Client } from "./client.js";
const say = (words) => document.querySelector("#said").textContent = words;
try {
  const client = await Client.connect(new URLSearchParams(location.search).get("server"));
  const { data } = await client.predict("/generate", { prompt: "a fox", steps: 1 });
  say(data[1].phase);
} catch (error) { say("refused: " + (error.message ?? error)); }
</script>"""


def test_gradios_client_draws_in_a_page_of_a_site_that_the_owner_named_alone(
    browser: BrowserContext, site: OtherSite, unguarded: int, node: Node
) -> None:
    client = node.modules / "@gradio" / "client" / "dist" / "index.min.js"
    site.pages["/client.js"] = "text/javascript", client.read_bytes()
    server = f"http://{NAME}:{unguarded}"
    site.pages[f"/draw?server={server}"] = "text/html", PAGE.encode()
    page = at(browser, f"{site.url(FRIEND)}/draw?server={server}")
    expect(page.locator("#said")).to_have_text("finished")
    before = figures(unguarded)
    page = at(browser, f"{site.url(EVIL)}/draw?server={server}")
    expect(page.locator("#said")).to_contain_text("refused: ")
    words = page.evaluate("(url) => fetch(url).then((answer) => answer.json())", f"{server}/config")
    assert words["detail"].startswith(
        f'Pages of other sites may not call this server; this request is from "{site.url(EVIL)}".'
    )
    assert figures(unguarded) == before


# The last, for it makes guesses.


def test_the_same_from_the_servers_own_page_would_do_all_that(
    browser: BrowserContext, guarded: int, unguarded: int
) -> None:
    victim, before = f"http://gpu-box:{unguarded}", figures(unguarded)
    found = attack(at(browser, f"{victim}/robots.txt"), victim, READS)  # a stream that is read has no end
    assert {path for how, path, _ in found if how == "fetch"} >= set(READS) - {"/gradio_api/user"}
    assert {how for how, *_ in found} >= {"fetch", "XMLHttpRequest", "iframe"}
    assert sum(figures(unguarded).values()) > sum(before.values())
    victim = f"http://gpu-box:{guarded}"
    logged_in(browser, victim)
    attack(at(browser, f"{victim}/robots.txt"), victim, READS)
    assert who(browser, victim) != "ann"
