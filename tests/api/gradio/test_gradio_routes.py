"""Gradio's own routes: no endless body is read, nothing is fetched or kept for a stranger, and no file but
the pictures is served."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from starlette.testclient import TestClient

from api.gradio.routes import NO_FILES, _is_over, refuse
from api.guard.access import ACCESS, POST, REFUSE, Access, Table
from api.guard.bodies import BoundBody
from tests.conftest import ROOT, serve
from tests.support.rest import TIMEOUT, call, post
from tests.support.tiny import SMALL

API = "/gradio_api"
POSTS = [
    *(
        f"{API}/{name}"
        for name in ("queue/join", "call/generate", "call/v2/generate", "run/models", "api/stop")
    ),
    f"{API}/call/nothing",
    f"{API}/cancel",
    f"{API}/reset",
]


@pytest.fixture(scope="module")
def http(scripted_server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=scripted_server, timeout=TIMEOUT) as client:
        yield client


def raw(server: str, head: str, body: bytes = b"") -> bytes:
    """The whole answer to a request as it is written here."""
    where = urlsplit(server)
    with socket.create_connection((where.hostname, where.port), timeout=TIMEOUT) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        return b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize("path", POSTS)
def test_a_body_past_the_bound_is_refused_before_it_comes(server: str, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    most = Table().find(path, "POST").most_bytes
    for length in (most + 1, 300_000_000, 10**15):
        answer = raw(server, f"{head}Content-Length: {length}\r\n")
        assert answer.startswith(b"HTTP/1.1 413 "), answer
        assert f'{{"detail":"The request\'s body is longer than {most:,} bytes'.encode() in answer


@pytest.mark.parametrize("path", POSTS[:3])
def test_a_body_that_doesnt_say_its_length_is_read_up_to_the_bound(http: httpx.Client, path: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"data": ["'
        for _ in range(20):
            yield b"x" * 100_000

    headers = {"content-type": "application/json"}
    answer = http.post(f"{path}", content=pieces(), headers=headers)
    assert answer.status_code == 413
    assert "1,048,576" in answer.json()["detail"]


def test_a_body_that_stops_coming_is_given_up() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("never asked")

    async def half() -> Any:
        sent.append(1)
        if len(sent) > 1:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": b"half", "more_body": True}

    sent: list[int] = []
    bound = BoundBody(echo, seconds=0.05)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await bound({**scope, ACCESS: Access("/", POST, "everyone"), REFUSE: refuse}, half, send)

    answer = TestClient(app).post("/")
    assert (answer.status_code, answer.headers["connection"]) == (408, "close")
    assert "0.05 seconds" in answer.text


@pytest.mark.parametrize(
    "path",
    ["upload", "upload?upload_id=1", "upload_progress?upload_id=1", "process_recording", "component_server",
     "component_server/", "deep_link?session_hash=x", "dev/reload", "stream/x/close",
     "custom_component/a/client/b/c", "proxy=https://example.hf.space/a",
     "proxy%3Dhttps://example.hf.space/a", "run-history/buckets"],
)  # fmt: skip
def test_what_stepwise_has_no_use_for_is_closed(http: httpx.Client, path: str) -> None:
    for method in ("GET", "POST", "HEAD"):
        answer = http.request(method, f"{API}/{path}")
        assert answer.status_code == 404
        if method != "HEAD":
            assert "no use" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/monitoring", "/monitoring/summary", "/monitoring/key", "/pwa_icon/100000"]
)
def test_so_is_what_lies_beside_the_api(http: httpx.Client, path: str) -> None:
    assert http.get(f"{path}").status_code == 404


def test_a_session_that_there_isnt_is_said_as_gradios_clients_read_it_and_leaves_no_traceback(
    tmp_path: Path,
) -> None:
    with serve(tmp_path) as url:
        answer = httpx.get(f"{url}{API}/queue/data", params={"session_hash": "nobody"}, timeout=TIMEOUT)
        assert answer.headers["content-type"].startswith("text/event-stream")
        said = json.loads(answer.text.removeprefix("data: "))
        assert (said["msg"], said["session_not_found"]) == ("unexpected_error", True)
        assert "Traceback" not in (tmp_path / "server.log").read_text()


class Listener:
    """Counts who connects to it."""

    def __init__(self) -> None:
        self.socket, self.visits = socket.create_server(("127.0.0.1", 0)), 0
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.visits += 1
            connection.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.socket.close()
    assert one.visits == 0


PRIVATE = (
    "http://100.64.0.1/",
    "http://192.0.0.192/opc/v2/",
    "http://169.254.169.254/latest/",
    "HTTP://100.64.0.1",
)


def test_a_file_s_address_is_fetched_for_nobody(http: httpx.Client, listener: Listener) -> None:
    for url in (listener.url, *PRIVATE, "https://example.org/", "ftp://100.64.0.1", "file:///etc/passwd"):
        for path in (
            f"file={url}",
            f"file/{url}",
            f"file={quote(url, safe='')}",
            f"file=%20{url}",
            f"proxy={url}",
        ):
            answer = http.get(f"{API}/{path}")
            assert answer.status_code in (403, 404), (path, answer.text)
            assert "root:" not in answer.text


def file(**fields: Any) -> dict[str, Any]:
    return {"path": "a.png", **fields, "meta": {"_type": "gradio.FileData"}}


def test_every_endpoint_refuses_a_files_address_whichever_parameter_it_stands_in(
    http: httpx.Client, listener: Listener
) -> None:
    functions = http.get("/config").json()["dependencies"]
    asked = 0
    for function in (one for one in functions if one["backend_fn"] and one["inputs"]):
        for address in (listener.url, PRIVATE[0]):
            for index in range(len(function["inputs"])):
                asked += 1
                data: list[Any] = [None] * len(function["inputs"])
                data[index] = [{"deep": file(path=address, url=address)}]
                assert NO_FILES in outcome(http, function["id"], data), (function["api_name"], index)
    assert asked >= 2 * (10 + 1 + 9)  # generate, stop, and the page's own


@pytest.mark.parametrize(
    "value",
    [file(path="/etc/passwd"), file(path="file:///etc/passwd"), file(path=str(ROOT / "models.yaml")),
     file(path="data:image/png;base64," + "A" * 100_000), file(url="http://100.64.0.1/"),
     file(path="models.yaml", is_stream=True), {"url": "http://100.64.0.1/"}],
    ids=["path", "file:", "the project's", "data:", "url alone", "a stream", "no file"],
)  # fmt: skip
def test_a_file_for_a_prompt_is_refused(server: str, value: Any) -> None:
    for body in ({"prompt": value}, {"prompt": [value]}, {"prompt": "a fox", "model": value}):
        answer = post(server, "generate", body)
        assert 400 <= answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text
        assert "sketch:" not in answer.text
        assert "root:" not in answer.text


def test_an_image_of_fifty_megabytes_in_a_parameter_is_not_read(server: str) -> None:
    image = "data:image/png;base64," + "A" * 50_000_000
    for body in ({"prompt": image}, {"prompt": file(url=image)}):
        assert post(server, "generate", body).status_code == 413


@pytest.mark.parametrize(
    "name", ["models.yaml", "app.py", ".env", ".git/config", "README.md", "requirements.txt"]
)
def test_the_projects_files_are_not_served(http: httpx.Client, name: str) -> None:
    for path in (str(ROOT / name), name, f"./{name}", f"{ROOT}/ui/../{name}", f"%2e%2e/{ROOT.name}/{name}"):
        answer = http.get(f"{API}/file={path}")
        assert answer.status_code in (403, 404), path
        assert http.get(f"/static/{path}").status_code in (403, 404)


def test_pictures_are_served_and_the_page_is(server: str, http: httpx.Client) -> None:
    images, _ = call(server, "generate", SMALL)
    answer = http.get(images[0]["image"]["url"])
    assert answer.content.startswith(b"\x89PNG")
    for path in (
        "/",
        "/config",
        f"{API}/info",
        "/theme.css",
        "/favicon.ico",
        "/manifest.json",
        "/robots.txt",
    ):
        assert http.get(f"{path}").status_code == 200, path


def test_an_answer_that_was_fetched_and_one_that_never_was_asked_for_are_answered_at_once(
    server: str, http: httpx.Client
) -> None:
    call_ = post(server, "models", {}).json()["event_id"]
    assert "event: complete" in http.get(f"{API}/call/models/{call_}").text
    for path in (f"models/{call_}", f"v2/models/{call_}", "generate/1234", "nothing/1234"):
        answer = http.get(f"{API}/call/{path}")
        assert answer.status_code == 404
        assert "no such call" in answer.json()["detail"]


def test_a_call_is_over_once_its_answer_was_read_though_its_task_still_ends() -> None:
    unread: set[str] = set()
    queue = SimpleNamespace(event_ids_to_events={"1234": None}, pending_event_ids_session={"one": unread})
    app = SimpleNamespace(get_blocks=lambda: SimpleNamespace(_queue=queue))
    assert _is_over(app, "1234")
    unread.add("1234")
    assert not _is_over(app, "1234")


def outcome(http: httpx.Client, function: int, data: list[Any]) -> str:
    """What a call of this function, as the page makes it, is answered: the refusal, or the stream."""
    session = f"files-{function}-{id(data)}"
    body = json.dumps({"data": data, "fn_index": function, "session_hash": session})
    headers = {"content-type": "application/json"}
    answer = http.post(f"{API}/queue/join", content=body, headers=headers)
    if answer.status_code != 200:
        return answer.text
    with http.stream("GET", f"{API}/queue/data", params={"session_hash": session}) as stream:
        return "".join(stream.iter_text())
