"""Other sites' pages, and names that a stranger makes point here, get nothing out of a visitor's browser."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from api.guard.sites import Sites, site_of
from pipeline.errors import SettingError
from settings import Settings
from tests.api.conftest import SHORT
from tests.conftest import serve
from tests.support.rest import TIMEOUT
from tests.support.tiny import entry, models_yaml

EVIL = "https://evil.example"
NAME = "draw.example.org"
ANN = ("ann", "a horse: battery")
JOIN = {"data": [], "fn_index": 0, "session_hash": "x"}
CALLS = [
    ("GET", "/config", None),
    ("GET", "/gradio_api/info", None),
    ("GET", "/gradio_api/queue/data?session_hash=x", None),
    ("GET", "/gradio_api/heartbeat/x", None),
    ("POST", "/gradio_api/queue/join", JOIN),
    ("POST", "/gradio_api/call/models", {"data": []}),
    ("POST", "/gradio_api/call/v2/jobs", {}),
    ("POST", "/gradio_api/cancel", {"session_hash": "x", "fn_index": 0, "event_id": "x"}),
    ("POST", "/v1/images/generations", {"prompt": "a fox"}),
    ("GET", "/v1/models", None),
    ("POST", "/mcp", {}),
    ("GET", "/metrics", None),
    ("POST", "/models", {}),
]
FOREIGN = [
    {"origin": EVIL},
    {"origin": EVIL, "sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
    {"origin": "http://127.0.0.1:1", "sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
    {"sec-fetch-site": "made-up", "sec-fetch-mode": "cors"},
    {"origin": "null"},
    {"origin": ""},
]
"""How a browser's request looks that another site's page sent."""


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


@pytest.fixture(scope="module")
def closed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with a login, known as NAME."""
    folder = tmp_path_factory.mktemp("closed")
    models = models_yaml(folder, entry(tiny_folder, limits=SHORT))
    settings = {"STEPWISE_MODELS": str(models), "STEPWISE_LOGIN": ":".join(ANN), "STEPWISE_HOSTS": NAME}
    with (
        serve(folder, **settings) as url,
        httpx.Client(base_url=url, timeout=TIMEOUT) as http,
    ):
        yield http


@pytest.fixture(scope="module")
def cookies(closed: httpx.Client) -> dict[str, str]:
    """Those of a browser in which Ann has logged in."""
    answer = httpx.post(
        closed.base_url.join("/login"), data={"username": ANN[0], "password": ANN[1]}, timeout=TIMEOUT
    )
    assert answer.status_code in (200, 303) and answer.cookies
    return dict(answer.cookies)


def status(http: httpx.Client, method: str, path: str, **request: object) -> int:
    """Without waiting for the end of an answer that streams."""
    with http.stream(method, path, **request) as answer:  # type: ignore[arg-type]
        return answer.status_code


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_sites_page_can_call_nothing_of_an_open_server(server: str, headers: dict[str, str]) -> None:
    local = "127.0.0.1" in headers.get("origin", "")  # open to whoever is on this machine
    with httpx.Client(base_url=server, timeout=TIMEOUT) as http:
        for method, path, body in CALLS[:3] if local else CALLS:
            found = status(http, method, path, json=body, headers=headers)
            assert (found != 403) if local else (found == 403), (method, path, found)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_sites_page_gets_nothing_by_its_visitors_cookie_or_password(
    closed: httpx.Client, cookies: dict[str, str], headers: dict[str, str]
) -> None:
    for method, path, body in CALLS:
        for mine in ({"cookie": "; ".join(f"{n}={v}" for n, v in cookies.items())}, basic(*ANN)):
            found = status(closed, method, path, json=body, headers=headers | mine)
            assert found == 401, (method, path, found)


def test_nor_do_guesses_that_it_makes_count_against_its_visitor(closed: httpx.Client) -> None:
    for _ in range(8):
        headers = {"origin": EVIL, **basic("ann", "a guess")}
        assert closed.get("/config", headers=headers).status_code == 401
        form = {"username": "ann", "password": "a guess"}
        assert closed.post("/login", data=form, headers={"origin": EVIL}).status_code == 403
    assert closed.get("/config", headers=basic(*ANN)).status_code == 200


@pytest.mark.parametrize("headers", [one for one in FOREIGN if one.get("origin") != ""], ids=str)
def test_it_logs_nobody_in_and_nobody_out(
    closed: httpx.Client, cookies: dict[str, str], headers: dict[str, str]
) -> None:
    form = {"username": ANN[0], "password": ANN[1]}
    answer = closed.post("/login", data=form, headers=headers)
    assert (answer.status_code, dict(answer.cookies)) == (403, {})
    theirs = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    for method in ("GET", "POST"):
        closed.request(method, "/logout", headers=headers | theirs, follow_redirects=False)
        assert closed.get("/config", headers=theirs).status_code == 200


def test_a_link_from_another_site_leads_to_the_page_as_its_visitor_is_logged_in(
    closed: httpx.Client, cookies: dict[str, str]
) -> None:
    theirs = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    for headers in (link, {"referer": f"{EVIL}/page"}):
        answer = closed.get("/", headers=headers | theirs)
        assert answer.status_code == 200 and "window.gradio_config" in answer.text
        assert closed.post("/gradio_api/cancel", json={}, headers=headers | theirs).status_code == 401


def test_a_browser_is_never_asked_for_a_password_that_it_would_then_send_for_everyone(
    closed: httpx.Client,
) -> None:
    for path in ("/", "/v1/models", "/mcp", "/config", "/gradio_api/file=/x"):
        for headers in ({"sec-fetch-mode": "navigate"}, {"accept": "text/html,*/*"}):
            answer = closed.get(path, headers=headers)
            assert "www-authenticate" not in answer.headers, path
    assert closed.get("/v1/models").headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example"])
def test_a_name_that_a_stranger_makes_point_here_is_not_answered(
    server: str, closed: httpx.Client, host: str
) -> None:
    for url in (server, str(closed.base_url)):
        with httpx.Client(base_url=url, timeout=TIMEOUT) as http:
            for method, path, body in CALLS:
                # As the server's own page, for to the browser it is.
                headers = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
                assert status(http, method, path, json=body, headers=headers) == 421, (method, path)
            assert http.get("/livez", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["a@b", "x y", "[", "127.0.0.1:x", "127.0.0.1/evil.example", "é.example"])
def test_what_is_no_host_is_not_answered_anywhere(server: str, host: str) -> None:
    for path in ("/", "/livez", "/favicon.ico", "/mcp"):
        answer = httpx.get(f"{server}{path}", headers={"host": host.encode()}, timeout=TIMEOUT)  # type: ignore[dict-item]
        assert answer.status_code == 400, path


@pytest.mark.parametrize(
    "host", ["localhost:7860", "127.0.0.1", "192.168.1.9:7860", "[::1]:7860", "gpu-box:7860", "box.local",
             "host.docker.internal:7860", "stepwise.localhost"]
)  # fmt: skip
def test_names_that_no_stranger_can_have_are_answered(server: str, host: str) -> None:
    assert httpx.get(f"{server}/v1/models", headers={"host": host}, timeout=TIMEOUT).status_code == 200


def test_so_is_the_name_that_the_owner_set(closed: httpx.Client) -> None:
    own = {"host": NAME, "origin": f"https://{NAME}", "sec-fetch-site": "same-origin"}
    assert closed.get("/config", headers=own | basic(*ANN)).status_code == 200
    assert closed.get("/config", headers=own | {"host": f"a.{NAME}"}).status_code == 421


def test_every_answer_says_that_its_kind_is_what_it_says_and_who_may_frame_it(
    server: str, closed: httpx.Client
) -> None:
    for url in (server, str(closed.base_url)):
        for path in (
            "/",
            "/config",
            "/v1/models",
            "/mcp",
            "/nothing",
            "/favicon.ico",
            "/livez",
            "/theme.css",
        ):
            headers = httpx.get(f"{url}{path}", timeout=TIMEOUT).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["content-security-policy"] == "frame-ancestors 'self' https://huggingface.co", path


# The rule by itself.


@pytest.mark.parametrize(
    "headers, method, site",
    [
        ({}, "POST", "unknown"),
        ({"sec-fetch-site": "same-origin"}, "POST", "own"),
        ({"sec-fetch-site": "none"}, "GET", "own"),
        ({"sec-fetch-site": "same-site"}, "POST", "other"),  # another port, or another name beneath the same
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "GET", "link"),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, "POST", "other"),  # a form
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, "GET", "other"),  # <img>
        ({"sec-fetch-site": "cross-site", "origin": "http://box:7860"}, "POST", "other"),
        ({"origin": "http://box:7860"}, "POST", "own"),
        ({"origin": "http://BOX:7860"}, "POST", "own"),
        ({"origin": "http://box:8000"}, "POST", "other"),
        ({"origin": "http://box"}, "POST", "other"),
        ({"origin": "http://box:7860.evil.example"}, "POST", "other"),
        ({"origin": "http://evil@box:7860"}, "POST", "other"),
        ({"origin": "null"}, "POST", "other"),
        ({"referer": "http://box:7860/page"}, "POST", "own"),
        ({"referer": "http://evil.example/box:7860"}, "POST", "other"),
        ({"referer": "http://evil.example/"}, "GET", "link"),
    ],
)
def test_whose_page_asks(headers: dict[str, str], method: str, site: str) -> None:
    assert site_of(Headers(headers), method, "box:7860") == site


def test_a_space_answers_to_its_own_names_and_pages_of_every_site_may_call_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPACE_ID", "ann/draw")
    monkeypatch.setenv("SPACE_HOST", "draw.example.org,ann-draw.hf.space")
    space = Sites.from_settings((), None, None)
    for host in ("draw.example.org", "ann-draw.hf.space", "ANN-draw.hf.space:443", "10.20.1.2:7860"):
        assert space.answers_to(host)
    assert not space.answers_to("evil.example") and not space.answers_to("hf.space.evil.example")
    assert space.let_in(EVIL) and not Sites.from_settings((), (), None).let_in(EVIL)


def test_an_owner_names_hosts_and_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ROOT_PATH", "https://art.example.org/sd")
    monkeypatch.setenv("STEPWISE_HOSTS", " draw.example.org , .example.net")
    monkeypatch.setenv("STEPWISE_ORIGINS", "https://blog.example.org")
    monkeypatch.setenv("STEPWISE_FRAMES", "")
    settings = Settings.read()
    sites = Sites.from_settings(settings.hosts, settings.origins, settings.frames)
    for host in ("draw.example.org", "a.example.net", "art.example.org"):
        assert sites.answers_to(host)
    for host in ("example.org", "example.net.evil.example", "bexample.net.x"):
        assert not sites.answers_to(host)
    assert sites.let_in("https://blog.example.org") and not sites.let_in("http://blog.example.org")
    assert sites.policy == "frame-ancestors 'self'"
    assert Sites.from_settings(("*",), ("*",), ("*",)).policy == ""
    assert Sites.from_settings(("*",), None, None).answers_to("evil.example")


@pytest.mark.parametrize(
    "name, value",
    [("HOSTS", "https://draw.example.org"), ("HOSTS", "draw.example.org:80"), ("HOSTS", "a b"),
     ("ORIGINS", "example.org"), ("ORIGINS", "https://example.org/page"), ("ORIGINS", "ftp://example.org"),
     ("FRAMES", "'self'; script-src *"), ("FRAMES", "https://a.example https://b.example")],
)  # fmt: skip
def test_a_mistake_in_them_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"STEPWISE_{name}", value)
    with pytest.raises(SettingError, match=f"STEPWISE_{name}: .* is no "):
        Settings.read()
