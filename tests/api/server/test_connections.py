"""Connections that ask for nothing hold nobody up, and don't stay."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from gradio import http_server
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from api.server.address import Address
from api.server.connections import MOST_FILES, HeaderTimeoutProtocol
from api.server.listening import ANSWERS, listen_at
from tests.conftest import ROOT, free_port
from tests.support.rest import TIMEOUT, call

HELLO = PlainTextResponse("hello")
HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "


class Quick(HeaderTimeoutProtocol):
    within = 0.5


@pytest.fixture(scope="module")
def quick() -> Iterator[str]:
    """A server that waits for headers for half a second."""
    yield from greeting(Quick)


@pytest.fixture
def punctual() -> Iterator[str]:
    """One that waits as long as the app."""
    yield from greeting(HeaderTimeoutProtocol)


@pytest.fixture
def everyones_host() -> Iterator[str]:
    """One that answers with the host that it was asked for."""

    async def host(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(Headers(scope=scope)["host"])(scope, receive, send)

    yield from greeting(HeaderTimeoutProtocol, host)


def greeting(protocol: type[HeaderTimeoutProtocol], asked: Any = HELLO) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(asked, port=port, http=protocol, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def connect(server: str, sent: bytes = b"") -> socket.socket:
    where = urlsplit(server)
    connection = socket.create_connection((where.hostname, where.port), timeout=TIMEOUT)
    connection.sendall(sent)
    return connection


def test_four_hundred_half_open_connections_hold_nobody_up(server: str) -> None:
    with contextlib.ExitStack() as open_:
        for number in range(400):
            body = b"POST /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
            open_.enter_context(connect(server, (HALF, body, b"")[number % 3]))
        assert httpx.get(server, timeout=TIMEOUT).status_code == 200
        assert call(server, "models", {})[0]


@pytest.mark.parametrize("sent", [b"", b"G", HALF], ids=["nothing", "a byte", "half"])
def test_a_connection_that_doesnt_complete_its_headers_is_closed(quick: str, sent: bytes) -> None:
    with connect(quick, sent) as connection:
        assert connection.recv(1) == b""


def test_one_that_sends_a_byte_now_and_then_is_closed_too(quick: str) -> None:
    with connect(quick, HALF) as connection:
        connection.settimeout(0.05)
        for _ in range(200):
            try:
                connection.sendall(b"x")
                assert connection.recv(1) == b""
                return
            except TimeoutError:
                continue
            except OSError:
                return  # it was closed while we wrote
    raise AssertionError("it was never closed")


def test_a_second_request_that_is_never_completed_is_closed(quick: str) -> None:
    with connect(quick, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        answer = b""
        while not answer.endswith(b"hello"):
            more = connection.recv(4096)
            assert more, answer
            answer += more
        connection.sendall(HALF)
        assert connection.recv(1) == b""


def test_a_request_whose_headers_come_in_pieces_is_answered(punctual: str) -> None:
    with connect(punctual, HALF) as connection:
        connection.sendall(b"but\r\n")
        connection.sendall(b"Connection: close\r\n\r\n")
        assert b"hello" in b"".join(iter(lambda: connection.recv(4096), b""))


@pytest.mark.parametrize("method", ["POST", "HEAD", "GET"])
def test_a_body_that_is_no_http_ends_its_connection_and_leaves_no_traceback(
    punctual: str, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    head = f"{method} / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for first, then in ((b"", b"no chunk\r\n"), (b"1\r\na\r\n", b"no chunk\r\n"), (b"no chunk\r\n", b"")):
        with connect(punctual, head + first) as connection:
            time.sleep(0.05)  # the app has answered
            with contextlib.suppress(OSError):
                connection.sendall(then)
                assert b"HTTP/1.1 " in b"".join(iter(lambda: connection.recv(4096), b""))
    assert not [record for record in caplog.records if record.exc_info]


def test_a_request_without_a_host_has_one_for_the_app(everyones_host: str) -> None:
    for head in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.0\r\nOrigin: http://evil.example\r\n\r\n"):
        with connect(everyones_host, head) as connection:
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            assert answer.endswith(everyones_host.removeprefix("http://").encode()), answer


def test_the_server_that_gradio_starts_for_the_app_is_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "start_server", http_server.start_server)  # put back afterwards
    listen_at(Address(port=free_port()), [])
    *_, started = http_server.start_server(PlainTextResponse("hello"))
    try:
        assert started.config.http_protocol_class is HeaderTimeoutProtocol
        assert started.config.timeout_graceful_shutdown == ANSWERS
    finally:
        started.close()


LIMIT = """
import resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
sys.path.insert(0, ".")
from api.server.connections import raise_file_limit
raise_file_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
raise_file_limit(65)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_and_never_lowered() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    done = subprocess.run([sys.executable, "-c", LIMIT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{allowed} {hard}"] * 2
