"""nginx in front, with the documentation's own blocks: on a host of its own, and under a path that it strips
or hands on. Everyone comes through it, and each address that the server gives out leads through it, too."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from mcp.types import CallToolResult
from openai import OpenAI
from playwright.sync_api import Page, expect, sync_playwright

from tests.api.conftest import SHORT
from tests.conftest import STEPS, serve
from tests.support.browser import EVERYWHERE, launch_chromium
from tests.support.mcp import connected, words
from tests.support.rest import TIMEOUT
from tests.support.services.nginx import AT_ROOT, HANDED_ON, UNDER_A_PATH, needs_nginx, nginx
from tests.support.services.node import Node
from tests.support.steps import Steps
from tests.support.tiny import entry, models_yaml
from tests.ui.studio import SLOW, NamedStudio

pytestmark = needs_nginx

ANN = ("ann", "a horse: battery")
KEY = "a-key-0123456789"
BEARER = {"authorization": f"Bearer {KEY}"}
DRAW = {"prompt": "a fox", "steps": 2, "width": 64, "height": 64, "seed": 7}
RESOLVE = socket.getaddrinfo
PNG = b"\x89PNG"
FRONTS = ("at the root", "by its public name", "path stripped", "path handed on")
NAME = "draw.example.org"
"""A name in the public DNS; here it leads to this machine."""


@dataclass(frozen=True)
class Fronts:
    """Where nginx shows the servers; each of them, and the one under a path, as they are without nginx."""

    urls: dict[str, str]
    servers: tuple[str, str]

    @property
    def behind(self) -> str:
        return self.servers[1]


@pytest.fixture(scope="module")
def fronts(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronts]:
    own, below, folder = (tmp_path_factory.mktemp(name) for name in ("own", "below", "nginx"))
    settings = {
        "STEPWISE_MODELS": str(models_yaml(own, entry(tiny_folder, limits=SHORT))),
        "STEPWISE_LOGIN": ":".join(ANN),
        "STEPWISE_API_KEYS": KEY,
        "STEPWISE_HOSTS": "example.org, .example.org",
        "STEPWISE_PROXIES": "127.0.0.1",
    }
    with (
        serve(own, **settings) as plain,
        serve(below, GRADIO_ROOT_PATH="sd/", **settings) as behind,  # as some write it
        nginx(folder, (AT_ROOT, plain), (UNDER_A_PATH, behind), (HANDED_ON, behind)) as (first, *others),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(socket, "getaddrinfo", _resolve)
        shown = [first, first.replace("127.0.0.1", NAME), *(f"{url}/sd" for url in others)]
        yield Fronts(dict(zip(FRONTS, shown, strict=True)), (plain, behind))


def _resolve(host: Any, *arguments: Any, **options: Any) -> Any:
    return RESOLVE("127.0.0.1" if host in (NAME, NAME.encode()) else host, *arguments, **options)


@pytest.fixture(params=FRONTS)
def front(fronts: Fronts, request: pytest.FixtureRequest) -> str:
    """The address at which nginx shows the server, without a slash at its end."""
    return fronts.urls[request.param]


@pytest.fixture
def steps(fronts: Fronts) -> Iterator[list[Steps]]:
    """The steps of both servers' drawings."""
    several = [STEPS[url] for url in fronts.servers]
    yield several
    for one in several:
        one.go_on()


def log_in(page: Page) -> None:
    page.get_by_label("Name").fill(ANN[0])
    page.get_by_label("Password").fill(ANN[1])
    page.get_by_role("button", name="Log in").click()


@pytest.mark.browser
def test_the_page_asks_for_the_login_draws_and_finds_its_picture_after_a_reload(front: str) -> None:
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright, EVERYWHERE)
        tab = NamedStudio(browser.new_page(), front)
        tab.page.goto(f"{front}/")
        log_in(tab.page)
        expect(tab.draw_button).to_be_visible(timeout=SLOW)
        tab.page.wait_for_function("!!(window.stepwise?.settings && window.stepwise.begin)")
        tab.draw("a fox")
        shown = tab.shown()
        tab.open()
        tab.history.click()
        tab.wait_for("finished")
        assert tab.shown().tobytes() == shown.tobytes()
        expect(tab.pictures.first).not_to_have_js_property("naturalWidth", 0)
        tab.page.get_by_role("button", name="Use via API").click()
        expect(tab.page.locator("pre:visible").filter(has_text=f'Client("{front}').first).to_be_visible()
        # Gradio's page asks for a favicon and its own MCP server, which is off.
        tab.allow("404 \\(Not Found\\)", reason="the page looks for Gradio's own MCP server, which is off")
        tab.page.goto(f"{front}/logout")
        tab.page.get_by_role("button", name="Log out").click()
        expect(tab.page.get_by_label("Password")).to_be_visible(timeout=SLOW)
        assert tab.page.url.rstrip("/") == front
        assert tab.unexplained() == []
        browser.close()


def test_gradio_client_draws_and_downloads(front: str) -> None:
    images, info = Client(front, auth=ANN, verbose=False).predict(**DRAW, api_name="/generate")
    assert info["phase"] == "finished"
    assert Path(images[0]["image"]).read_bytes().startswith(PNG)


GRADIO_JS = """
import dns from "node:dns";
const lookup = dns.lookup;
dns.lookup = (host, ...more) => lookup(host === process.env.NAME ? "127.0.0.1" : host, ...more);
import { Client } from "@gradio/client";
const client = await Client.connect(process.argv[2], { auth: JSON.parse(process.env.AUTH) });
const { data } = await client.predict("/generate", JSON.parse(process.env.VALUES));
console.log(JSON.stringify([data[1].phase, data[0][0].image.url]));
"""


def test_gradios_javascript_client_draws(node: Node, tmp_path: Path, front: str) -> None:
    printed = node.run(GRADIO_JS, tmp_path, front, NAME=NAME, AUTH=json.dumps(ANN), VALUES=json.dumps(DRAW))
    phase, url = json.loads(printed)
    assert phase == "finished"
    assert url.startswith(f"{front}/gradio_api/file=")
    assert httpx.get(url, headers=BEARER, timeout=TIMEOUT).content.startswith(PNG)


def test_openais_client_draws_and_streams(front: str, steps: list[Steps]) -> None:
    openai = OpenAI(base_url=f"{front}/v1", api_key=KEY, timeout=TIMEOUT, max_retries=0)
    extra = {"steps": 2, "seed": 7}
    drawn = openai.images.generate(prompt="a fox", size="64x64", response_format="url", extra_body=extra)
    assert drawn.data is not None
    url = drawn.data[0].url or ""
    assert url.startswith(f"{front}/gradio_api/file=")
    assert httpx.get(url, headers=BEARER, timeout=TIMEOUT).content.startswith(PNG)
    for one in steps:
        one.hold(1)  # until its preview has come
    kinds = []
    with openai.images.generate(
        prompt="a fox", size="64x64", stream=True, partial_images=2, extra_body=extra
    ) as events:
        for event in events:
            kinds.append(event.type)
            for one in steps:
                one.go_on()
    assert (kinds[0], kinds[-1]) == ("image_generation.partial_image", "image_generation.completed")
    assert [model.id for model in openai.models.list()] == ["tiny"]


def test_an_mcp_client_draws_and_its_link_leads_to_the_picture(front: str) -> None:
    async def drawn() -> CallToolResult:
        async with connected(front, **BEARER) as session:
            return await session.call_tool("draw", DRAW)

    url = json.loads(words(asyncio.run(drawn())))["png"]
    assert url.startswith(f"{front}/gradio_api/file=")
    assert httpx.get(url, headers=BEARER, timeout=TIMEOUT).content.startswith(PNG)


def test_both_clients_come_in_by_a_name_and_a_password_too(front: str) -> None:
    password = httpx.BasicAuth(*ANN)
    with httpx.Client(auth=password, timeout=TIMEOUT) as http:
        openai = OpenAI(base_url=f"{front}/v1", api_key="none", http_client=http, max_retries=0)
        assert [model.id for model in openai.models.list()] == ["tiny"]

    async def listed() -> list[str]:
        request = next(password.auth_flow(httpx.Request("GET", front)))
        async with connected(front, authorization=request.headers["authorization"]) as session:
            return [tool.name for tool in (await session.list_tools()).tools]

    assert "draw" in asyncio.run(listed())


def test_login_and_logout_stay_below_the_path(front: str) -> None:
    with httpx.Client(base_url=front, timeout=TIMEOUT) as http:
        assert http.get("/config").status_code == 401
        http.post("/login", data={"username": ANN[0], "password": ANN[1]})
        config = http.get("/config").json()
        assert (config["username"], config["root"]) == ("ann", front)
        assert http.post("/logout").headers["location"] == "./"
        assert http.get("/config").status_code == 401


def test_health_metrics_and_the_openapi_document_are_there(front: str) -> None:
    with httpx.Client(base_url=front, timeout=TIMEOUT, auth=ANN) as http:
        assert [http.get(path).status_code for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
        assert http.get("/v1/openapi.json").json()["servers"] == [{"url": f"{front}/v1"}]
        assert "MCP server" in http.get("/mcp").text
        assert http.get("/gradio_api/info").json()["named_endpoints"]


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of its own on Linux alone")
def test_each_visitor_is_who_nginx_saw_whatever_they_write(fronts: Fronts, front: str) -> None:
    def guesses(address: str) -> list[int]:
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=TIMEOUT) as http:
            return [
                http.post(
                    f"{front}/login",
                    data={"username": ANN[0], "password": f"guess {number}"},
                    headers={"x-forwarded-for": f"9.9.9.{number}", "x-real-ip": f"9.9.9.{number}"},
                ).status_code
                for number in range(7)
            ]

    network = f"127.0.{1 + list(fronts.urls.values()).index(front)}"
    for address in (f"{network}.1", f"{network}.2"):
        assert guesses(address) == [400] * 5 + [429] * 2


PATHS = (
    *("/", "/config", "/livez", "/readyz", "/metrics", "/theme.css", "/robots.txt", "/favicon.ico"),
    *(
        "/logout",
        "/v1/models",
        "/v1/models/tiny",
        "/v1/models/none",
        "/v1/openapi.json",
        "/v1/none",
        "/mcp",
        "/mcp/",
    ),
    *("/gradio_api/info", "/gradio_api/startup-events", "/gradio_api/upload", "/login", "/none"),
)


@pytest.mark.parametrize("path", PATHS)
def test_without_nginx_each_route_answers_with_and_without_the_path(fronts: Fronts, path: str) -> None:
    with httpx.Client(base_url=fronts.behind, timeout=TIMEOUT, auth=ANN) as http:
        bare, below = http.get(path), http.get(f"/sd{path}")
        assert (below.status_code, below.headers.get("location")) == (
            bare.status_code,
            bare.headers.get("location"),
        )
        assert below.headers.get("content-type") == bare.headers.get("content-type")


def test_the_path_without_its_slash_leads_to_the_page(fronts: Fronts) -> None:
    answer = httpx.get(f"{fronts.behind}/sd?__theme=dark", timeout=TIMEOUT)
    assert (answer.status_code, answer.headers["location"]) == (308, "/sd/?__theme=dark")


def test_addresses_have_the_scheme_and_host_that_the_proxy_names(fronts: Fronts) -> None:
    headers = BEARER | {"x-forwarded-host": "example.org", "x-forwarded-proto": "https"}
    answer = httpx.get(f"{fronts.behind}/v1/openapi.json", headers=headers, timeout=TIMEOUT)
    assert answer.json()["servers"] == [{"url": "https://example.org/sd/v1"}]


def test_the_snippets_of_the_api_name_the_address_of_who_asks_not_of_who_asked_first(fronts: Fronts) -> None:
    for host in ("first.example.org", "second.example.org"):
        answer = httpx.get(
            f"{fronts.behind}/gradio_api/info", headers={"x-forwarded-host": host}, auth=ANN, timeout=TIMEOUT
        )
        snippets = answer.json()["named_endpoints"]["/generate"]["code_snippets"]
        assert all(f"http://{host}/sd" in snippet for snippet in snippets.values())
