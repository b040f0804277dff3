"""Proxies of the environment: this machine is never asked for through one, and one that can't be used is
named and stops what goes elsewhere, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import httpx
import httpx2
import pytest
import requests

from pipeline.proxies import unusable, use_proxies
from tests.cli.command import environment, run
from tests.support.tiny import ROOT

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CLEAN = {name: "" for lower in NAMES for name in (lower, lower.upper())}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies, to be changed."""
    for name in CLEAN:
        monkeypatch.setenv(name, "")  # so that all of them are put back
    return monkeypatch


def test_without_a_proxy_nothing_is_changed() -> None:
    nothing = {"HOME": "/", "http_proxy": ""}
    assert use_proxies(environment=nothing) == []
    assert nothing == {"HOME": "/", "http_proxy": ""}


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("spared", ["no_proxy", "NO_PROXY"])
def test_loopback_and_the_own_address_are_spared_and_the_owners_hosts_kept(
    alone: pytest.MonkeyPatch, server: str, name: str, spared: str
) -> None:
    alone.setenv(name, "http://127.0.0.1:1")
    alone.setenv(spared, "example.org, [fd00::1]")
    alone.setenv("no_proxy" if spared == "NO_PROXY" else "NO_PROXY", "")
    assert use_proxies("192.0.2.7") == []
    for get in (httpx.get, httpx2.get, requests.get):
        assert get(f"{server}/livez", timeout=60).status_code == 200  # type: ignore[operator]
    hosts = "example.org,fd00::1,localhost,127.0.0.1,::1,192.0.2.7"
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (hosts, hosts)
    assert use_proxies("192.0.2.7") == []
    assert os.environ["no_proxy"] == hosts


def test_who_wants_no_proxy_at_all_gets_none() -> None:
    settings = {"http_proxy": "http://127.0.0.1:1", "NO_PROXY": "*"}
    assert use_proxies(environment=settings) == []
    assert settings["no_proxy"] == "*"  # requests knows it where it stands alone


BAD = {
    "socks5://user:secret@proxy:1080": "run `pip install",
    "socks5h://proxy:1080": "a package is missing",
    "socks4://user:secret@proxy:1080": "begins with socks4://, and must begin with http://",
    "socks://proxy:1080": "begins with socks://",  # as GNOME writes it
    "ftp://proxy": "begins with ftp://",
    "http://[secret": "it is no address",
    "http://user:secret@proxy:port": "it is no address",
    "http://proxy:99999999": "it is no address",
    "http://:3128": "names no host",
}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
def test_a_proxy_that_cant_be_used_is_named_without_its_password_and_clients_can_be_made(
    alone: pytest.MonkeyPatch, name: str, value: str
) -> None:
    alone.setitem(sys.modules, "socksio", None)  # type: ignore[arg-type]  # as where it isn't installed
    alone.setenv(name, value)
    (words,) = use_proxies()
    assert words.startswith(f"{name} can't be used: ")
    assert BAD[value].partition("run ")[2] in words and BAD[value].partition("run ")[0] in words
    assert "secret" not in words
    for library in (httpx, httpx2):
        client: Any = library.Client()
        with pytest.raises(library.ConnectError):  # not past the proxy, where the owner wants none to go
            client.get("https://192.0.2.1")
        client.close()
    assert unusable() == f" The proxy in {name} can't be used: the first lines of the log say why."
    assert use_proxies() == []  # said once


@pytest.mark.parametrize("host", ["fd00::/8", "::1/128", "ü"])
def test_a_host_to_spare_that_cant_be_read_is_named_and_left_out(
    alone: pytest.MonkeyPatch, host: str
) -> None:
    alone.setenv("NO_PROXY", f"example.org,{host}")
    (words,) = use_proxies()
    assert f"“{host}”" in words
    httpx.Client(verify=False).close()
    assert os.environ["NO_PROXY"].startswith("example.org,localhost")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks4://127.0.0.1:1"])
def test_the_command_line_draws_with_a_server_on_this_machine_whatever_the_proxy(
    server: str, tmp_path: Any, proxy: str
) -> None:
    ended = run(
        tmp_path,
        "models",
        "--server",
        server,
        env=environment(**CLEAN | {"http_proxy": proxy, "ALL_PROXY": proxy}),
    )
    assert ended.returncode == 0, ended.stderr
    assert (b"ALL_PROXY can't be used" in ended.stderr) == proxy.startswith("socks")


def test_looking_at_them_takes_no_slow_import() -> None:
    code = "import sys, pipeline.proxies as it; it.use_proxies(); sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(**CLEAN)).returncode == 0
