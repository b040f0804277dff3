"""The server listens where its owner said or not at all, and says so before the slow imports."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from api.server.address import NAME, PORT, PORTS, ROOT_PATH, Address, root_path
from pipeline.errors import SettingError
from tests.conftest import ROOT, free_port, serve
from tests.support.rest import TIMEOUT


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.1 that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def start(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """The app's start, which ends at once."""
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", **settings}
    program = [sys.executable, *(command or ("app.py",))]
    return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


ONE_TO = "must be from 1 to 65535; got"
BAD = {
    "a port that is no number": (PORT, "abc", f'{PORT} {ONE_TO} "abc"'),
    "a port past the last": (PORT, "70000", f"{PORT} {ONE_TO} 70000"),
    "port 0": (PORT, "0", f"{PORT} {ONE_TO} 0"),
    "a number of ports that is none": (PORTS, "many", f'{PORTS} {ONE_TO} "many"'),
    "another machine's address": (
        *(NAME, "192.0.2.1", "Can't listen on 192.0.2.1: Cannot assign requested address. "),
        *(f"{NAME} must be an address of this machine",),
    ),
    "another machine's IPv6 address": (NAME, "2001:db8::1", "Can't listen on 2001:db8::1: "),
    "a name that nobody knows": (NAME, "nowhere.invalid", "Can't listen on nowhere.invalid: "),
    "a name with an empty part": (NAME, "a..b", "Can't listen on a..b: "),
    "a whole address": (NAME, "http://127.0.0.1", "without http://", 'got "http://127.0.0.1"'),
    "a name with a port": (NAME, "localhost:7860", f"a port ({PORT} has it)", 'got "localhost:7860"'),
    "an interface": (NAME, "fe80::1%eth0", 'got "fe80::1%eth0"'),
    "a root path with a query": (ROOT_PATH, "/sd?x", f"{ROOT_PATH} must be a path, as /sd", 'got "/sd?x"'),
    "a root path with another scheme": (ROOT_PATH, "ftp://example.org/sd", f"{ROOT_PATH} must be"),
    "a root path that begins with two slashes": (ROOT_PATH, "//example.org", f"{ROOT_PATH} must be"),
    "a root path with dots": (ROOT_PATH, "/sd/../x", f"{ROOT_PATH} must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cant_be_used_is_said_before_anything_is_imported(name: str) -> None:
    variable, value, *words = BAD[name]
    with pytest.raises(SettingError) as refusal:
        Address.from_environment(environment={variable: value}).ensure_free()
    assert all(one in str(refusal.value) for one in words)


@pytest.mark.parametrize("name", ["a port that is no number", "another machine's address"])
def test_the_start_ends_with_these_words_alone(name: str) -> None:
    variable, value, *words = BAD[name]
    ended = start(**{variable: value})
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert all(one in line for one in words)


def test_a_port_that_the_owner_named_and_another_program_has_stops_the_start(taken: int) -> None:
    ended = start(GRADIO_SERVER_PORT=str(taken))
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line == (
        f"Can't listen on port {taken} of 127.0.0.1: Address already in use. Another program listens there. "
        "GRADIO_SERVER_PORT names it: name another, or none, for the next that is free."
    )
    ended = start("-m", "cli", "serve", "--port", str(taken), GRADIO_SERVER_PORT=str(free_port()))
    assert ended.returncode == 2
    assert "--port names it" in ended.stderr


def test_a_port_that_is_taken_after_the_start_looked_is_named_too(taken: int) -> None:
    with pytest.raises(SettingError, match=f"port {taken} of 127.0.0.1"):
        Address(port=taken, port_named="GRADIO_SERVER_PORT").listen()


def test_without_a_named_port_the_next_free_one_is_taken_and_said(taken: int) -> None:
    said: list[str] = []
    sockets = Address(ports=range(taken, taken + 50)).listen(said.append)
    port = sockets[0].getsockname()[1]
    for one in sockets:
        one.close()
    assert port > taken
    assert said == [
        f"Port {taken} is taken: this server listens on {port}. GRADIO_SERVER_PORT names another."
    ]
    with pytest.raises(SettingError, match=f"{taken} to {taken} are all taken"):
        Address(ports=range(taken, taken + 1)).listen()


def test_a_port_of_the_systems_own_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", denied)  # root may listen everywhere
    with pytest.raises(SettingError, match="below 1024 are the system's own: name a larger one in GRADIO"):
        Address.from_environment(environment={"GRADIO_SERVER_PORT": "80"}).ensure_free()


def test_empty_variables_are_as_good_as_none_and_the_command_line_goes_first() -> None:
    empty = {
        "GRADIO_SERVER_NAME": " ",
        "GRADIO_SERVER_PORT": "",
        "GRADIO_NUM_PORTS": "",
        "GRADIO_ROOT_PATH": "",
    }
    assert Address.from_environment(environment=empty) == Address()
    assert empty == {}  # Gradio would read a number from them
    both = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "8000"}
    assert Address.from_environment("[::1]", 9000, both) == Address(
        "::1", 9000, host_named="--host", port_named="--port"
    )
    assert Address.from_environment(environment=both).port_named == "GRADIO_SERVER_PORT"


@pytest.mark.parametrize(
    "host, shown, asked",
    [
        ("127.0.0.1", "127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", "127.0.0.1", ["127.0.0.1"]),
        ("::1", "[::1]", ["::1"]),
        ("::", "[::1]", ["::1", "127.0.0.1"]),
        ("localhost", "localhost", ["127.0.0.1"]),
    ],
)
def test_each_way_to_name_this_machine_listens_and_has_an_address_that_answers(
    host: str, shown: str, asked: list[str]
) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    address = Address(host, free_port())
    sockets = address.listen()
    assert address.url_host() == shown
    for one in asked:
        socket.create_connection((one, address.port or 0), timeout=TIMEOUT).close()
    for one in sockets:
        one.close()


def has_ipv6() -> bool:
    try:
        with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "value, meant",
    [
        ("/sd", "/sd"),
        ("sd", "/sd"),
        ("/sd/", "/sd"),
        ("/", ""),
        (" /a/b/ ", "/a/b"),
        ("/user/a%40b", "/user/a%40b"),
        ("https://example.org/sd/", "https://example.org/sd"),
        ("HTTP://example.org:8443", "http://example.org:8443"),
    ],
)
def test_a_root_path_is_taken_as_people_write_it(value: str, meant: str) -> None:
    assert root_path(value) == meant


def test_the_server_starts_behind_all_that_an_environment_may_have_and_draws(tmp_path: Path) -> None:
    """Proxies that can't be used or answer nothing, on every address of the machine."""
    port = free_port()
    settings = {
        "GRADIO_SERVER_NAME": "::" if has_ipv6() else "0.0.0.0",
        "http_proxy": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "ALL_PROXY": "socks4://ann:secret@127.0.0.1:1",
        "NO_PROXY": "example.org, fd00::/8",
        "GRADIO_ROOT_PATH": "https://example.org/sd/",
    }
    with serve(tmp_path, port=port, **settings) as url:
        body = {"prompt": "a fox", "size": "128x128", "steps": 1, "response_format": "url"}
        for path in ("/v1", "/sd/v1"):
            answer = httpx.post(f"{url}{path}/images/generations", json=body, timeout=TIMEOUT)
            drawn = answer.json()["data"][0]["url"]
            assert drawn.startswith("https://example.org/sd/gradio_api/file=")
        picture = httpx.get(drawn.replace("https://example.org", url), timeout=TIMEOUT)
        assert picture.content.startswith(b"\x89PNG")
        log = (tmp_path / "server.log").read_text()
    assert f"http://{'[::1]' if has_ipv6() else '127.0.0.1'}:{port}" in log
    assert f"Listening on port {port} of all of this machine's addresses" in log
    assert "ALL_PROXY can't be used: its address begins with socks4://" in log
    assert "“fd00::/8” can't be read" in log
    assert "secret" not in log
    assert "Traceback" not in log


def test_what_is_sent_of_a_stream_does_not_wait_for_more() -> None:
    address = Address.from_environment(environment={PORT: str(free_port())})
    with contextlib.ExitStack() as open_:
        listening, *_ = [open_.enter_context(one) for one in address.listen()]
        open_.enter_context(socket.create_connection(listening.getsockname()[:2]))
        accepted = open_.enter_context(listening.accept()[0])
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
