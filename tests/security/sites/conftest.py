"""A real Chromium, the servers that it goes to, and another site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.api.conftest import SHORT
from tests.conftest import serve
from tests.inside.sitecustomize import SCRIPTED
from tests.security.support.browsing import ANN, BOB, FRIEND, NAME, port_of
from tests.security.support.other_site import OtherSite, other_site
from tests.support.browser import EVERYWHERE, launch_chromium
from tests.support.tiny import entry, models_yaml
from tests.ui.studio import SLOW


@pytest.fixture(scope="module")
def site() -> Iterator[OtherSite]:
    with other_site() as site:
        yield site


@pytest.fixture(scope="module")
def guarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server that asks for a login."""
    folder = tmp_path_factory.mktemp("guarded")
    settings = {
        "STEPWISE_MODELS": str(models_yaml(folder, entry(tiny_folder, limits=SHORT))),
        "STEPWISE_LOGIN": ",".join(map(":".join, (ANN, BOB))),
        "STEPWISE_HOSTS": NAME,
        "STEPWISE_PROXIES": "127.0.0.1",  # there may be one, and browsers on the same machine
    }
    with serve(folder, **settings, **SCRIPTED) as url:
        yield port_of(url)


@pytest.fixture(scope="module")
def unguarded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, site: OtherSite) -> Iterator[int]:
    """The port of a server that is open to everyone, and lets a friend's pages call it and frame it."""
    folder = tmp_path_factory.mktemp("unguarded")
    settings = {
        "STEPWISE_MODELS": str(models_yaml(folder, entry(tiny_folder, limits=SHORT))),
        "STEPWISE_HOSTS": NAME,
        "STEPWISE_PROXIES": "127.0.0.1",  # there may be one, and browsers on the same machine
        "STEPWISE_ORIGINS": site.url(FRIEND),
        "STEPWISE_FRAMES": site.url(FRIEND),
    }
    with serve(folder, **settings, **SCRIPTED) as url:
        yield port_of(url)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch_chromium(playwright, EVERYWHERE)
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[BrowserContext]:
    """Somebody's, who has been nowhere yet."""
    context = chromium.new_context()
    context.set_default_timeout(SLOW)
    yield context
    context.close()
