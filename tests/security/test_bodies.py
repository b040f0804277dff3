"""Bodies that no route can use: each is refused by name, in the shape of Gradio's refusals, and what is slow,
endless or grows when it is read holds nobody up."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from api.gradio.bodies import NO_FILES
from api.gradio.json_bodies import MOST_VALUES
from api.guard.access import Table
from tests.support.rest import TIMEOUT, call, refusal
from tests.support.tiny import SMALL

API = "/gradio_api"
JSON = {"content-type": "application/json"}
ROUTES = [
    f"{API}/{name}"
    for name in ("queue/join", "call/models", "call/v2/models", "run/models", "cancel", "reset", "reset/")
]
"""Those of Gradio's that read JSON."""
FORM = "application/x-www-form-urlencoded"

UNREADABLE = {
    "NaN": (b"NaN", 422, "object"),
    "a text": (b'"a"', 422, "object"),
    "half a character": (b'"\\ud800"', 422, "object"),
    "a list": (b"[1]", 422, "object"),
    "nothing": (b" ", 400, "not JSON"),
    "no JSON": (b"{'a': 1}", 400, "not JSON"),
    "no end": (b'{"a":', 400, "not JSON"),
    "no UTF-8": (b'{"a": "\xff"}', 400, "UTF-8"),
    "half a letter": (b'{"a": "\xe2\x82', 400, "UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), 400, "UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', 400, "not JSON"),
    "5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", 400, "too long"),
    "a key twice": (b'{"a": 1, "a": 2}', 400, "twice"),
    "a key twice, within": (b'{"data": [{"\\ud800": 1, "\\ud800": 2}]}', 400, "twice"),
    "too deep": (b'{"a": ' + b"[" * 600 + b"]" * 600 + b"}", 400, "deep"),
    "far too deep": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "deep"),
    "too many": (b'{"data": [' + b"1," * MOST_VALUES + b"1]}", 400, "10,000"),
}


@pytest.mark.parametrize("body, status, words", UNREADABLE.values(), ids=UNREADABLE)
def test_json_that_can_t_be_read_in_one_way_is_refused(
    server: str, body: bytes, status: int, words: str
) -> None:
    for path in ROUTES:
        answer = httpx.post(f"{server}{path}", content=body, headers=JSON, timeout=TIMEOUT)
        if len(body) > Table().find(path, "POST").most_bytes:
            assert answer.status_code == 413, path
            continue
        assert answer.status_code == status, (path, answer.text)
        assert words in refusal(answer)


JOIN: dict[str, Any] = {"data": [], "session_hash": "odd", "fn_index": 0}
WRONG = {
    "cancel NaN": ("cancel", '{"session_hash": NaN, "fn_index": 1, "event_id": "a"}', 400, "NaN"),
    "cancel 1e400": ("cancel", '{"session_hash": "a", "fn_index": 1e400, "event_id": "a"}', 400, "finite"),
    "cancel half a character": (
        "cancel", '{"session_hash": "\\udfff", "fn_index": 1, "event_id": "a"}', 400, "surrogate"
    ),
    "cancel nothing": ("cancel", "{}", 422, "session_hash: Field required"),
    "cancel a text": ("cancel", '{"session_hash": "a", "fn_index": "1", "event_id": "a"}', 422, "fn_index"),
    "reset NaN": ("reset", '{"event_id": NaN}', 400, "NaN"),
    "reset deep NaN": ("reset", '{"event_id": "a", "b": [{"c": -Infinity}]}', 400, "NaN"),
    "reset half a character": ("reset", '{"\\ud800": 1}', 400, "surrogate"),
    "join half a character": (
        "queue/join", '{"data": [], "session_hash": "\\ud800", "fn_index": 0}', 400, "surrogate"
    ),
    "join NaN": ("queue/join", '{"data": [], "session_hash": "a", "fn_index": NaN}', 400, "NaN"),
    "join no session": ("queue/join", json.dumps(JOIN | {"session_hash": None}), 422, "session_hash"),
    "join a list": ("queue/join", json.dumps(JOIN | {"session_hash": ["a"]}), 422, "session_hash"),
    "join no list": ("queue/join", json.dumps(JOIN | {"data": {}}), 422, "data"),
    "join a batch": ("queue/join", json.dumps(JOIN | {"batched": True}), 422, "batched"),
    "join unknown": ("queue/join", json.dumps(JOIN | {"fn_index": 99}), 404, "no such function"),
    "join negative": ("queue/join", json.dumps(JOIN | {"fn_index": -1}), 404, "no such function"),
    "join huge": ("queue/join", json.dumps(JOIN | {"fn_index": 10**100}), 404, "no such function"),
    "call unknown": ("call/draw", '{"data": []}', 404, "There is no endpoint /draw"),
    "call the page's": ("call/load_example", '{"data": [0]}', 404, "There is no endpoint"),
    "call too few": ("call/stop", '{"data": []}', 422, "this function takes 1"),
    "call a session": ("call/jobs", '{"data": [], "session_hash": "\\ud800"}', 400, "surrogate"),
    "run unknown": ("run/draw", '{"data": []}', 404, "There is no endpoint /draw"),
    "run the page's": ("run/resume", '{"data": []}', 404, "There is no endpoint /resume"),
    "run none": ("run/predict", '{"data": [0], "fn_index": 1000}', 404, "no such function"),
    "run too few": ("run/stop", '{"data": []}', 422, "this function takes 1"),
    "run a batch": ("run/stop", '{"data": ["a"], "batched": true}', 422, "batched"),
    "no such call": ("call/v2/", '{"data": []}', 404, "There is no endpoint /v2"),
}  # fmt: skip


@pytest.mark.parametrize("path, body, status, words", WRONG.values(), ids=WRONG)
def test_a_body_of_another_shape_than_its_route_s_is_refused(
    server: str, path: str, body: str, status: int, words: str
) -> None:
    answer = httpx.post(f"{server}{API}/{path}", content=body, headers=JSON, timeout=TIMEOUT)
    assert answer.status_code == status, answer.text
    assert words in refusal(answer)


def test_a_value_that_no_widget_sends_is_refused(server: str) -> None:
    functions = httpx.get(f"{server}/config", timeout=TIMEOUT).json()["dependencies"]
    for function in (one for one in functions if one["backend_fn"] and one["inputs"]):
        file = {"path": "/etc/passwd", "meta": 5}
        for value in (file, [[{"a": file}]]):
            data = [value] * len(function["inputs"])
            answer = join(server, function["id"], data)
            assert (answer.status_code, refusal(answer)) == (400, NO_FILES)
    examples = next(one["id"] for one in functions if one["api_name"] == "load_example")
    for value in (None, "a", [1], 1.5, {"a": "\ud800"}, 99, float("nan"), 10**400):
        answer = join(server, examples, [value])
        assert answer.status_code == 400, answer.text
        assert "is nothing that" in refusal(answer)
    assert join(server, examples, [0]).is_success


def join(server: str, function: int, data: list[Any]) -> httpx.Response:
    body = json.dumps(JOIN | {"fn_index": function, "data": data})
    return httpx.post(f"{server}{API}/queue/join", content=body, headers=JSON, timeout=TIMEOUT)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", FORM, "multipart/form-data; boundary=b", "application/jso"]
)
def test_a_body_that_doesn_t_say_it_is_json_is_refused(server: str, kind: str) -> None:
    for path in ROUTES:
        headers = {"content-type": kind} if kind else {}
        for body in (b'{"data": []}', b"\xff\xfe", b"--b\r\n\r\n\xff\r\n--b--"):
            answer = httpx.post(f"{server}{path}", content=body, headers=headers, timeout=TIMEOUT)
            assert answer.status_code == 415
            assert "application/json" in refusal(answer)


def test_what_gradio_s_clients_send_passes(server: str) -> None:
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"):
        headers = {"content-type": kind}
        url = f"{server}{API}/call/models"
        answer = httpx.post(url, content=b'{"data": []}', headers=headers, timeout=TIMEOUT)
        assert answer.is_success and answer.json()["event_id"]
    assert httpx.post(f"{server}{API}/run/models", json={"data": []}, timeout=TIMEOUT).is_success
    assert httpx.post(f"{server}{API}/reset", json={"event_id": "a"}, timeout=TIMEOUT).is_success
    cancel = {"session_hash": "a", "fn_index": 1, "event_id": "a"}
    assert httpx.post(f"{server}{API}/cancel", json=cancel, timeout=TIMEOUT).is_success


RANGES = (
    "bytes=0-1,3-4", "bytes=0-5,2-9", "bytes=0-0,-1", "bytes=-0", "bytes=5-2", "bytes=99999999999-", "a=0-1",
    "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(150)), "bytes=" + "9" * 5000 + "-",
)  # fmt: skip


@pytest.mark.parametrize("range_", RANGES, ids=lambda text: text[:20])
def test_a_range_of_several_parts_or_none_is_answered_or_refused(server: str, range_: str) -> None:
    picture = call(server, "generate", SMALL)[0][0]["image"]["url"]
    for url in (picture, f"{server}/favicon.ico", f"{server}/static/img/logo.svg"):
        for coding in ("identity", "br", "gzip"):
            headers = {"range": range_, "accept-encoding": coding}
            assert httpx.get(url, headers=headers, timeout=TIMEOUT).status_code in (200, 206, 400, 416)


@pytest.mark.parametrize(
    "path",
    ["/%0a", "/config%0a", "/logout%0a", f"{API}/heartbeat/%0a", f"{API}/queue/join%0a", "/images/a%0ab"],
)
def test_a_line_break_at_the_end_of_a_path_leads_nowhere(server: str, path: str) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{server}{path}", timeout=TIMEOUT)
        assert answer.status_code in (404, 405), answer.text[:500]


def test_a_file_whose_name_no_disk_can_have_is_not_there(server: str) -> None:
    for folder in ("static", "assets", "svelte"):
        for name in ("x" * 256, "é" * 128, "x/" * 2000):
            assert httpx.get(f"{server}/{folder}/{name}", timeout=TIMEOUT).status_code == 404


@pytest.mark.parametrize("path", ["/", "/config", "/models", "/v1/openapi.json", "/livez"])
def test_an_address_that_is_none_changes_nothing_or_is_refused(server: str, path: str) -> None:
    usual = httpx.get(f"{server}{path}", timeout=TIMEOUT).status_code
    for host in ("\x01", "a b", "[", "x:abc", "x:99999", "é".encode(), "a" * 70_000):
        for name in ("x-forwarded-host", "x-gradio-server"):  # a stranger's, who is no proxy
            answer = httpx.get(f"{server}{path}", headers={name: host}, timeout=TIMEOUT)
            assert answer.status_code in (usual, 400)  # h11 takes no more than 64 KB of headers
        assert httpx.get(f"{server}{path}", headers={"host": host}, timeout=TIMEOUT).status_code == 400
    assert httpx.get(f"{server}{path}?{'a' * 9000}", timeout=TIMEOUT).status_code == 414


def test_nobody_chooses_the_addresses_in_the_page(server: str) -> None:
    headers = {"x-gradio-server": "http://evil.example"}
    for path in ("/", "/config"):
        answer = httpx.get(f"{server}{path}", headers=headers, timeout=TIMEOUT)
        assert answer.is_success and "evil.example" not in answer.text


def test_a_page_that_there_isn_t_is_not_found(server: str) -> None:
    for path in ("/?page=admin", "/?page=&page=admin"):
        answer = httpx.get(f"{server}{path}", timeout=TIMEOUT)
        assert answer.status_code == 404, answer.text[:500]


POSTS = [*ROUTES, "/v1/images/generations", "/mcp"]


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """300 MB of JSON, packed to less than one."""
    packed = gzip.compress(b'{"data": ["' + b"a" * 300_000_000 + b'"]}', 9)
    assert len(packed) < 2**20
    return packed


@pytest.mark.parametrize("path", POSTS)
def test_what_grows_when_it_is_unpacked_is_not_unpacked(server: str, bomb: bytes, path: str) -> None:
    for headers in (JSON | {"content-encoding": "gzip"}, JSON):
        answer = httpx.post(f"{server}{path}", content=bomb, headers=headers, timeout=TIMEOUT)
        assert answer.status_code in (413, 415), answer.text


MULTIPARTS = {
    "many": b'--b\r\nContent-Disposition: form-data; name="username"\r\n\r\na\r\n' * 12_000 + b"--b--",
    "files": b'--b\r\nContent-Disposition: form-data; name="a"; filename="../../b"\r\n\r\na\r\n' * 9_000
    + b"--b--",
    "a long header": b"--b\r\nContent-Disposition: " + b"a" * 900_000 + b"\r\n\r\na\r\n--b--",
    "many headers": b"--b\r\n" + b"a: b\r\n" * 100_000 + b"\r\na\r\n--b--",
    "no end": b'--b\r\nContent-Disposition: form-data; name="username"\r\n\r\n' + b"a" * 900_000,
    "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\na\r\n--b--",
    "no text": b'--b\r\nContent-Disposition: form-data; name="username"\r\n\r\n\xff\xfe\r\n--b--',
    "a file for a name": (
        b'--b\r\nContent-Disposition: form-data; name="username"; filename="a"\r\n\r\na\r\n'
        b'--b\r\nContent-Disposition: form-data; name="password"; filename="\xff"\r\n\r\na\r\n--b--'
    ),
}


@pytest.mark.parametrize("body", MULTIPARTS.values(), ids=MULTIPARTS)
def test_a_form_of_many_or_odd_parts_is_refused_at_once(server: str, body: bytes) -> None:
    for path in (*POSTS, "/login", "/"):
        for boundary in ("b", "", "c", "é", "b" * 3000):
            headers = {"content-type": f"multipart/form-data; boundary={boundary}".encode()}
            answer = httpx.post(f"{server}{path}", content=body, headers=headers, timeout=TIMEOUT)
            assert 400 <= answer.status_code < 500, (path, boundary, answer.text[:500])


def test_a_body_without_an_end_is_cut_at_the_bound(server: str) -> None:
    for path in POSTS:
        with connected(server) as one:
            head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            one.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            sent, chunk = 0, b"%x\r\n%b\r\n" % (65536, b"a" * 65536)
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while sent < 2**26:
                    one.sendall(chunk)
                    sent += len(chunk)
                    one.settimeout(0.01)
                    with contextlib.suppress(TimeoutError):
                        answer = one.recv(4096)
                        break
                    one.settimeout(TIMEOUT)
            assert answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 4")), (path, answer)
            assert sent < 2**24


def test_bodies_that_come_slowly_hold_nobody_up(server: str) -> None:
    with contextlib.ExitStack() as open_:
        for number in range(200):
            one = open_.enter_context(connected(server))
            head = f"POST {POSTS[number % len(POSTS)]} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n"
            one.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
        assert httpx.get(f"{server}/livez", timeout=TIMEOUT).is_success
        assert call(server, "models", {})[0]


def connected(server: str) -> socket.socket:
    where = urlsplit(server)
    return socket.create_connection((where.hostname, where.port), timeout=TIMEOUT)
