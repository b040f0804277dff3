"""In a real Chromium, another site's page gets nothing out of a visitor's browser, nor does it by a name that
it makes point here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Response, expect

from tests.security.support.browsing import (
    ANN,
    BOB,
    EVIL,
    FRIEND,
    NAME,
    NAMES,
    TRUSTED_OR_NOT,
    at,
    figures,
    who,
)
from tests.security.support.other_site import OtherSite
from tests.support.rest import TIMEOUT
from tests.support.services.node import Node

pytestmark = pytest.mark.browser

ATTACK = (Path(__file__).parent / "attack.js").read_text(encoding="utf-8")
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


@pytest.mark.parametrize("name", TRUSTED_OR_NOT)
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


@pytest.mark.parametrize("name", TRUSTED_OR_NOT)
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
