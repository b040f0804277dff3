"""Nobody becomes another person by what a request says of itself: what proxies write (X-Forwarded-For and its
like) counts where the owner has named them, and from nobody else, not from this machine either."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import SHORT
from tests.conftest import STEPS, serve
from tests.support.mcp import INITIALIZE
from tests.support.rest import TIMEOUT, read_figures
from tests.support.tiny import entry, models_yaml

ANN = ("ann", "a horse: battery")
LONG, SHORT_KEY = "a-key-0123456789-of-some-length", "seven-7"
DRAW = {"prompt": "a fox", "size": "64x64", "steps": 2, "response_format": "url"}
RATE = 12
EVIL = "evil.example"
GRADIO = "/gradio_api"


def settings(folder: Path, tiny: Path) -> dict[str, str]:
    return {
        "STEPWISE_MODELS": str(models_yaml(folder, entry(tiny, limits=SHORT))),
        "STEPWISE_LOGIN": ":".join(ANN),
        "STEPWISE_API_KEYS": f"{LONG},{SHORT_KEY}",
        "STEPWISE_RATE": f"{RATE}/hour",
        "STEPWISE_MAX_WAITING_EACH": "2",
    }


@pytest.fixture(scope="module")
def alone(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with no proxy named."""
    folder = tmp_path_factory.mktemp("alone")
    with serve(folder, **settings(folder, tiny_folder)) as url:
        yield url


@pytest.fixture(scope="module")
def behind(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server behind a proxy on this machine, and one in front of that."""
    folder = tmp_path_factory.mktemp("behind")
    with serve(
        folder,
        STEPWISE_PROXIES="127.0.0.1, 10.9.0.0/16",
        STEPWISE_HOSTS="draw.example.org",
        **settings(folder, tiny_folder),
    ) as url:
        yield url


@pytest.fixture(scope="module")
def ann(alone: str) -> Iterator[httpx.Client]:
    """Logged in on the page, before anyone guesses from here."""
    with httpx.Client(base_url=alone, timeout=TIMEOUT) as client:
        assert client.post("/login", data={"username": ANN[0], "password": ANN[1]}).status_code == 200
        yield client


def forged(number: int) -> dict[str, str]:
    """What a stranger writes to be someone else each time."""
    address = f"9.9.{number // 250}.{number % 250 + 1}"
    return {"x-forwarded-for": address, "x-real-ip": address, "forwarded": f"for={address}"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def guess(server: str, number: int, headers: dict[str, str]) -> int:
    form = {"username": "ann", "password": f"guess {number}"}
    return httpx.post(f"{server}/login", data=form, headers=headers, timeout=TIMEOUT).status_code


def models(server: str, headers: dict[str, str]) -> httpx.Response:
    return httpx.get(f"{server}/v1/models", headers=headers, timeout=TIMEOUT)


def draw(server: str, headers: dict[str, str]) -> httpx.Response:
    headers = bearer(LONG) | headers
    return httpx.post(f"{server}/v1/images/generations", json=DRAW, headers=headers, timeout=TIMEOUT)


# Without a named proxy: from this machine, with a header that changes each time.


def test_rotating_the_header_gives_no_places_in_the_queue_and_no_drawings(
    alone: str, ann: httpx.Client
) -> None:
    steps = STEPS[alone]
    steps.hold(1)
    with ThreadPoolExecutor(8) as pool:
        drawn: list[Future[httpx.Response]] = [pool.submit(draw, alone, forged(0))]
        deadline = time.monotonic() + TIMEOUT
        while not any(
            number for name, number in read_figures(ann.get("/metrics").text).items()
            if name[0] == "stepwise_jobs_running"
        ):  # fmt: skip
            assert time.monotonic() < deadline
            time.sleep(0.05)
        drawn += [pool.submit(draw, alone, forged(number)) for number in range(1, 7)]
        deadline = time.monotonic() + 20
        while sum(one.done() for one in drawn) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        refused = [one.result() for one in drawn if one.done()]
        steps.go_on()
        wait(drawn)
    assert [answer.status_code for answer in refused] == [429] * 4
    assert sorted(one.result().status_code for one in drawn) == [200] * 3 + [429] * 4
    statuses = [draw(alone, forged(number)).status_code for number in range(7, RATE + 3)]
    assert statuses == [200] * (RATE - 7) + [429] * 3


def test_rotating_the_header_gives_no_more_guesses_at_a_password(alone: str, ann: httpx.Client) -> None:
    statuses = [guess(alone, number, forged(number)) for number in range(20)]
    assert statuses == [400] * 5 + [429] * 15
    for number, path in enumerate(("/config", "/v1/models", "/mcp")):  # the same guesses
        headers = basic("ann", "another") | forged(100 + number)
        assert httpx.get(alone + path, headers=headers, timeout=TIMEOUT).status_code == 429
    assert ann.get("/config").status_code == 200  # who is logged in stays so


def test_rotating_the_header_gives_no_more_guesses_at_a_key(alone: str) -> None:
    answers = [models(alone, bearer(f"wrong-{number}") | forged(number)) for number in range(20)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 15
    late = answers[-1]
    assert late.json()["error"]["code"] == "rate_limited"
    assert "Too many wrong keys from here: at most 5 a minute" in late.json()["error"]["message"]
    assert 1 <= int(late.headers["retry-after"]) <= 62
    mcp = httpx.post(f"{alone}/mcp", json=INITIALIZE, headers=bearer("wrong"), timeout=TIMEOUT)
    assert mcp.status_code == 429 and "wrong keys" in mcp.json()["error"]["message"]
    picture = httpx.get(f"{alone}{GRADIO}/file=x", headers=bearer("wrong"), timeout=TIMEOUT)
    assert picture.status_code == 429 and "wrong keys" in picture.json()["detail"]
    assert models(alone, {}).status_code == 401  # no key is no guess
    assert models(alone, bearer(SHORT_KEY)).status_code == 429  # it could be a guess that is right
    assert models(alone, bearer(LONG)).status_code == 200  # it couldn't: a stranger shuts nobody out


@pytest.mark.parametrize(
    "headers",
    [{"x-forwarded-host": EVIL}, {"x-gradio-server": f"http://{EVIL}"}, {"x-forwarded-proto": "https"},
     {"forwarded": f"for=9.9.9.9;host={EVIL};proto=https"}],
    ids=lambda headers: next(iter(headers)),
)  # fmt: skip
def test_no_address_that_the_server_gives_out_is_one_that_a_stranger_named(
    alone: str, ann: httpx.Client, headers: dict[str, str]
) -> None:
    config = ann.get("/config", headers=headers)
    assert config.json()["root"] == alone
    document = httpx.get(f"{alone}/v1/openapi.json", headers=bearer(LONG) | headers, timeout=TIMEOUT)
    assert document.json()["servers"] == [{"url": f"{alone}/v1"}]
    texts = [config.text, document.text, ann.get(f"{GRADIO}/info", headers=headers).text]
    texts += [ann.get(path, headers=headers).text for path in ("/", "/v1", "/mcp")]
    calls = [ann.post(f"{GRADIO}/call/models", json={"data": []}, headers=headers) for _ in range(2)]
    events = [ann.get(f"{GRADIO}/call/models/{call.json()['event_id']}", headers=headers) for call in calls]
    texts += [event.text for event in events]
    assert not [text for text in texts if EVIL in text or alone.replace("http:", "https:") in text]


@pytest.mark.parametrize("header", ["x-forwarded-host", "x-gradio-server"])
def test_an_address_that_cant_be_read_breaks_nothing(alone: str, ann: httpx.Client, header: str) -> None:
    for value in ("[", "http://[", "a b", "x" * 9000):
        answer = ann.get("/config", headers={header: value})
        assert (answer.status_code, json.loads(answer.text)["root"]) == (200, alone)


# Behind a named proxy: who it says is asking.


def test_behind_a_named_proxy_each_visitor_has_guesses_drawings_and_keys_of_their_own(behind: str) -> None:
    def by(address: str) -> dict[str, str]:
        return {"x-forwarded-for": address}

    assert [guess(behind, number, by("8.8.8.8")) for number in range(7)] == [400] * 5 + [429] * 2
    assert guess(behind, 0, by("8.8.4.4")) == 400
    keys = [models(behind, bearer("wrong") | by("8.8.8.8")).status_code for _ in range(7)]
    assert keys == [401] * 5 + [429] * 2
    assert models(behind, bearer("wrong") | by("8.8.4.4")).status_code == 401
    assert models(behind, bearer(SHORT_KEY) | by("8.8.4.4")).status_code == 200
    drawn = [draw(behind, by("8.8.8.8")).status_code for _ in range(RATE + 1)]
    assert drawn == [200] * RATE + [429]
    assert draw(behind, by("8.8.4.4")).status_code == 200


@pytest.mark.parametrize(
    "chain",
    ["9.9.0.{}, 8.1.1.1", "127.0.0.1, 9.9.0.{}, 8.1.1.2, 10.9.0.1", "8.1.1.3:47{:02}", "[2a02:8108::{}]:4711",
     "2a02:8109:0:0:{}::1", "unknown, {}, 8.1.1.4", "9.9.9.9, garbage {}", "::ffff:9.9.9.{}, ::ffff:8.1.1.5"],
)  # fmt: skip
def test_forged_entries_before_the_proxys_own_are_nobody_else(behind: str, chain: str) -> None:
    statuses = [guess(behind, number, {"x-forwarded-for": chain.format(number + 1)}) for number in range(7)]
    assert statuses == [400] * 5 + [429] * 2


def test_thousands_of_entries_before_the_proxys_own_are_nobody_else(behind: str) -> None:
    chains = [f"{'9.9.9.9,' * 5000}9.9.0.{number}, 8.1.1.6" for number in range(7)]  # 40 KB
    statuses = [guess(behind, number, {"x-forwarded-for": chain}) for number, chain in enumerate(chains)]
    assert statuses == [400] * 5 + [429] * 2


def test_the_addresses_are_those_that_a_named_proxy_says(behind: str) -> None:
    headers = bearer(LONG) | {"x-forwarded-host": f"{EVIL}, draw.example.org", "x-forwarded-proto": "https"}
    document = httpx.get(f"{behind}/v1/openapi.json", headers=headers, timeout=TIMEOUT)
    assert document.json()["servers"] == [{"url": "https://draw.example.org/v1"}]
