"""The real models on the page, from the Hub: what it says before, while and after a model is fetched. Behind
the real ids and the repository's own models.yaml stand a Hub of our own and tiny weights of SD3.5's shape.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.conftest import serve
from tests.support.rest import call
from tests.support.services.hub import FakeHub, Repository, serve_hub
from tests.support.tiny import models_yaml, own_entries, tiny_sd35, tiny_z_image
from tests.ui.conftest import PHONE
from tests.ui.studio import SLOW, Studio
from tests.ui.test_looks import findings

GOOD = frozenset({"hf_good"})
MEDIUM = "stabilityai/stable-diffusion-3.5-medium"
NAMES = {
    "sd3.5-large-turbo": "Stable Diffusion 3.5 Large Turbo",
    "z-image-turbo": "Z-Image Turbo",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny pipeline for each model, by its id."""
    folder = tmp_path_factory.mktemp("repositories")
    large = tiny_sd35(folder / "large")
    return {
        "sd3.5-large": large,
        "sd3.5-large-turbo": large,
        "sd3.5-medium": tiny_sd35(folder / "medium", medium=True),
        "z-image-turbo": tiny_z_image(folder / "z-image"),
    }


@contextlib.contextmanager
def hub_of(folders: dict[str, Path]) -> Iterator[FakeHub]:
    """A Hub with all four under their real ids, at the commits that models.yaml pins. One token's account has
    accepted the licences, but for Medium's."""
    with serve_hub() as hub:
        for model, entry in own_entries().items():
            if model in folders:
                accepted = GOOD if entry["license"].get("gated") else None
                hub.repositories[entry["source"]] = Repository(folders[model], accepted, entry["revision"])
        hub.repositories[MEDIUM].accepted = frozenset()
        yield hub


@pytest.fixture(scope="module")
def hub(folders: dict[str, Path]) -> Iterator[FakeHub]:
    with hub_of(folders) as hub:
        yield hub


@contextlib.contextmanager
def app(hub: FakeHub, folder: Path, **settings: str) -> Iterator[str]:
    """An app whose Hub is that one, and an empty cache; its address."""
    environment = {
        "HF_HUB_OFFLINE": "0",
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DOWNLOAD_TIMEOUT": "300",  # a file is held for as long as a test looks at it
        "HF_HOME": str(folder / "hf"),
        "STEPWISE_MODELS": str(models_yaml(folder, *own_entries().values())),
        "STEPWISE_DEVICE": "cpu",
    }
    with serve(folder, **environment | settings) as url:
        yield url


@pytest.fixture(scope="module")
def server(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app with a token, which begins by making Large and Medium ready. What it has fetched it keeps, so
    each test has models of its own."""
    hold(hub)
    made_ready = "sd3.5-large,sd3.5-medium"
    folder = tmp_path_factory.mktemp("app")
    with app(hub, folder, HF_TOKEN="hf_good", STEPWISE_PRELOAD=made_ready) as url:
        yield url


def hold(hub: FakeHub) -> None:
    """Of each model, the transformer comes only once it is released."""
    hub.slow, hub.held = threading.Event(), "transformer/diffusion"


def release(hub: FakeHub) -> None:
    assert hub.slow is not None
    hub.slow.set()


def weights(folder: Path) -> str:
    """How much of a repository there is to fetch, as the page says it."""
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"


def test_what_is_made_ready_at_the_start_is_shown_while_others_draw(
    server: str, hub: FakeHub, folders: dict[str, Path], open_tab: Callable[..., Studio]
) -> None:
    tab = open_tab()
    ready = tab.page.locator("#coming")
    whole = re.escape(weights(folders["sd3.5-large"]))
    expect(ready).to_contain_text(
        re.compile(rf"Downloading Stable Diffusion 3\.5 Large0\.[1-9] of {whole}"), timeout=SLOW
    )
    expect(ready).to_contain_text("Also coming: Stable Diffusion 3.5 Medium")
    share = ready.get_by_role("progressbar").first.get_attribute("aria-valuenow")
    assert 0 < int(share or 0) < 100
    listed = {model["id"]: model["coming"] for model in call(server, "models", {})[0]}
    assert listed["sd3.5-large"]["phase"] == "downloading"
    assert listed["sd3.5-medium"] == {"phase": "queued", "done": 0, "total": 0, "error": None}
    assert listed["sketch"] is None
    assert not findings(tab)
    tab.choose_model("Sketch")
    tab.make_quick()
    tab.draw()  # it waits for nothing
    expect(ready).to_contain_text("Downloading Stable Diffusion 3.5 Large")
    tab.page.set_viewport_size(PHONE)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    release(hub)
    expect(ready).not_to_contain_text("Stable Diffusion 3.5 Large", timeout=SLOW)
    expect(ready).to_contain_text("Stable Diffusion 3.5 Medium is not ready")
    expect(ready).to_contain_text("accept its licence")
    assert not findings(tab)
    dark = open_tab(color_scheme="dark")
    box = dark.page.locator("#coming .missing")
    expect(box).to_have_css("background-color", "rgb(59, 13, 13)")
    assert not findings(dark)


def test_a_licence_that_is_accepted_after_the_refusal_needs_no_restart(hub: FakeHub, tab: Studio) -> None:
    release(hub)
    tab.choose_model("3.5 Medium")
    tab.draw_button.click()
    tab.wait_for("failed")
    expect(tab.notes.locator(".error")).to_contain_text("the account of HF_TOKEN may not have it yet")
    page = f"huggingface.co/{MEDIUM}"
    expect(tab.notes.get_by_role("link", name=page)).to_have_attribute("href", f"https://{page}")
    assert not findings(tab)
    hub.repositories[MEDIUM].accepted = GOOD
    tab.draw()
    expect(tab.notes).to_be_empty()
    assert tab.recipe()["model"] == "sd3.5-medium"
    tab.page.reload()
    expect(tab.draw_button).to_be_visible()
    expect(tab.page.locator("#coming")).to_be_hidden()  # nothing is left that isn't ready


def test_a_real_model_is_downloaded_with_progress_and_drawn(
    hub: FakeHub, folders: dict[str, Path], tab: Studio
) -> None:
    release(hub)
    for model in ("sd3.5-large-turbo", "z-image-turbo"):
        hold(hub)
        tab.choose_model(re.compile(f"^{re.escape(NAMES[model])}$"))
        expect(tab.page.locator("#about")).not_to_contain_text("Can’t run here")
        tab.draw_button.click()
        whole = re.escape(weights(folders[model]))
        expect(tab.line).to_have_text(
            re.compile(rf"^Downloading the model · (0\.[1-9]|[1-9][0-9]*\.[0-9]) of {whole}$"), timeout=SLOW
        )
        bar = tab.page.get_by_role("progressbar", name="Drawing")
        assert 0 < int(bar.get_attribute("aria-valuenow") or 0) < 100
        release(hub)
        tab.wait_for("finished")
        assert tab.recipe()["model"] == model
        assert tab.shown().size == (64, 64)


def test_without_a_token_the_page_says_so_and_what_needs_none_draws(
    folders: dict[str, Path], tmp_path: Path, open_tab: Callable[..., Studio]
) -> None:
    with hub_of(folders) as hub, app(hub, tmp_path) as url:
        tab = open_tab(url=url)
        about = tab.page.locator("#about .missing")
        for name in ("3.5 Large Turbo", "3.5 Medium"):
            tab.choose_model(name)
            expect(about).to_contain_text("Needs HF_TOKEN, a token of yours (scope: read).")
            expect(about).not_to_contain_text("GPU")
            expect(about.get_by_role("link", name="Make a token")).to_have_attribute(
                "href", "https://huggingface.co/settings/tokens"
            )
        tab.draw_button.click()
        expect(tab.notes).to_contain_text("Needs HF_TOKEN")
        assert not hub.files
        tab.choose_model("Z-Image")
        expect(about).to_have_count(0)
        tab.draw()
        assert tab.recipe()["model"] == "z-image-turbo"
        tab.page.close()
