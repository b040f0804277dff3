"""A place that every account of the machine may go to; a provider to log in at, and a browser that does; a
server with accounts of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.api.conftest import SHORT, Keyed
from tests.conftest import serve
from tests.inside.sitecustomize import SCRIPTED
from tests.security.support.hub_logins import HERE, browser_of, login_at
from tests.security.support.local_logins import ANN, BOB
from tests.support.services.openid import OpenIdProvider, serve_openid
from tests.support.tiny import entry, models_yaml


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every account may go through; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="local-users-")).resolve()
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def running() -> Iterator[OpenIdProvider]:
    with serve_openid() as provider:
        provider.callback = f"{HERE}/login/callback"
        yield provider


@pytest.fixture
def hub(running: OpenIdProvider) -> OpenIdProvider:
    """The provider, which tells the truth."""
    running.lies, running.sign, running.answers, running.person = {}, None, {}, "ann"
    running.requests.clear()
    return running


@pytest.fixture
def browser(hub: OpenIdProvider) -> Iterator[TestClient]:
    """A browser in front of an app that knows nobody yet."""
    with browser_of(login_at(hub)) as browser:  # one event loop for all its requests
        yield browser


@pytest.fixture(scope="module")
def closed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server that asks for a name and a password."""
    folder = tmp_path_factory.mktemp("sessions")
    models = models_yaml(folder, entry(tiny_folder, limits=SHORT))
    login = f"{':'.join(ANN)},{':'.join(BOB)}"
    settings = {"STEPWISE_MODELS": str(models), "STEPWISE_LOGIN": login, "STEPWISE_PROXIES": "127.0.0.1"}
    with serve(folder, **settings, **SCRIPTED) as url:
        yield Keyed(url, folder / "server.log")
