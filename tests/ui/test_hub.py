"""The real models on the page, from the Hub: what it says before, while and after a model is fetched. Behind
the real ids and the repository's own models.yaml stand a Hub of our own and tiny weights of SD3.5's shape.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.conftest import serve
from tests.hub import FakeHub, Repository, serve_hub
from tests.rest import call
from tests.tiny import models_yaml, own_entries, tiny_sd35, tiny_z_image
from tests.ui.conftest import PHONE
from tests.ui.studio import Studio
from tests.ui.test_looks import findings

GOOD = frozenset({"hf_good"})
NAMES = {
    "sd3.5-large": "Stable Diffusion 3.5 Large",
    "sd3.5-large-turbo": "Stable Diffusion 3.5 Large Turbo",
    "sd3.5-medium": "Stable Diffusion 3.5 Medium",
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


@pytest.fixture
def hub(folders: dict[str, Path]) -> Iterator[FakeHub]:
    """A Hub with all four under their real ids, at the commits that models.yaml pins. One token's account has
    accepted the licences."""
    with serve_hub() as hub:
        for model, entry in own_entries().items():
            if model in folders:
                accepted = GOOD if entry["license"].get("gated") else None
                hub.repositories[entry["source"]] = Repository(folders[model], accepted, entry["revision"])
        yield hub


@pytest.fixture
def start(hub: FakeHub, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts an app whose Hub is that one, and an empty cache; gives its address."""
    running = []

    def start(**settings: str) -> str:
        models = models_yaml(tmp_path, *own_entries().values())
        environment = {
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "STEPWISE_MODELS": str(models),
            "STEPWISE_DEVICE": "cpu",
        }
        running.append(serve(tmp_path, **environment | settings))
        return running[-1].__enter__()

    yield start
    for app in running:
        app.__exit__(None, None, None)


@pytest.fixture
def server() -> str:
    """No app that is shared: each test opens its own."""
    return ""


def weights(folder: Path) -> str:
    """How much of a repository there is to fetch, as the page says it."""
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:.1f} MB"


def test_each_real_model_is_downloaded_with_progress_and_drawn(
    start: Callable[..., str], hub: FakeHub, folders: dict[str, Path], open_tab: Callable[..., Studio]
) -> None:
    url = start(HF_TOKEN="hf_good")
    tab = open_tab(url=url)
    for model, name in NAMES.items():
        hub.slow, hub.held = threading.Event(), "transformer/diffusion"
        tab.choose_model(re.compile(f"^{re.escape(name)}$"))
        expect(tab.page.locator("#about")).not_to_contain_text("Can’t run here")
        tab.draw_button.click()
        whole = re.escape(weights(folders[model]))
        expect(tab.line).to_have_text(
            re.compile(rf"^Downloading the model · (0\.[1-9]|[1-9][0-9]*\.[0-9]) of {whole}$")
        )
        bar = tab.page.get_by_role("progressbar", name="Drawing")
        assert 0 < int(bar.get_attribute("aria-valuenow") or 0) < 100
        hub.slow.set()
        tab.wait_for("finished")
        assert tab.recipe()["model"] == model
        assert tab.shown().size == (64, 64)


def test_without_a_token_the_page_says_so_and_what_needs_none_draws(
    start: Callable[..., str], hub: FakeHub, open_tab: Callable[..., Studio]
) -> None:
    tab = open_tab(url=start())
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


def test_a_licence_that_is_accepted_after_the_refusal_needs_no_restart(
    start: Callable[..., str], hub: FakeHub, open_tab: Callable[..., Studio]
) -> None:
    hub.tokens |= {"hf_new"}
    tab = open_tab(url=start(HF_TOKEN="hf_new"))
    tab.choose_model("3.5 Medium")
    tab.draw_button.click()
    tab.wait_for("failed")
    expect(tab.notes.locator(".error")).to_contain_text("the account of HF_TOKEN may not have it yet")
    page = "huggingface.co/stabilityai/stable-diffusion-3.5-medium"
    expect(tab.notes.get_by_role("link", name=page)).to_have_attribute("href", f"https://{page}")
    assert not findings(tab)
    hub.repositories["stabilityai/stable-diffusion-3.5-medium"].accepted = frozenset({"hf_new"})
    tab.draw()
    expect(tab.notes).to_be_empty()
    assert tab.recipe()["model"] == "sd3.5-medium"


def test_what_is_made_ready_at_the_start_is_shown_while_others_draw(
    start: Callable[..., str], hub: FakeHub, folders: dict[str, Path], open_tab: Callable[..., Studio]
) -> None:
    hub.slow, hub.held = threading.Event(), "transformer/diffusion"
    hub.repositories["stabilityai/stable-diffusion-3.5-medium"].accepted = frozenset()
    url = start(HF_TOKEN="hf_good", STEPWISE_PRELOAD="sd3.5-large,sd3.5-medium")
    tab = open_tab(url=url)
    ready = tab.page.locator("#coming")
    whole = re.escape(weights(folders["sd3.5-large"]))
    expect(ready).to_contain_text(
        re.compile(rf"Downloading Stable Diffusion 3\.5 Large0\.[1-9] of {whole}"), timeout=20_000
    )
    expect(ready).to_contain_text("Also coming: Stable Diffusion 3.5 Medium")
    share = ready.get_by_role("progressbar").first.get_attribute("aria-valuenow")
    assert 0 < int(share or 0) < 100
    listed = {model["id"]: model["coming"] for model in call(url, "models", {})[0]}
    assert listed["sd3.5-large"]["phase"] == "downloading"
    assert listed["sd3.5-medium"] == {"phase": "queued", "done": 0, "total": 0, "error": None}
    assert listed["sketch"] is None
    assert not findings(tab)
    tab.choose_model("Sketch")
    tab.make_quick()
    tab.draw()  # it waits for nothing
    expect(ready).to_contain_text("Downloading Stable Diffusion 3.5 Large")
    phone = open_tab(url=url, viewport=PHONE)
    expect(phone.page.locator("#coming")).to_contain_text("Downloading")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    hub.slow.set()
    expect(ready).not_to_contain_text("Stable Diffusion 3.5 Large", timeout=20_000)
    expect(ready).to_contain_text("Stable Diffusion 3.5 Medium is not ready")
    expect(ready).to_contain_text("accept its licence")
    assert not findings(tab)
    dark = open_tab(url=url, color_scheme="dark")
    box = dark.page.locator("#coming .missing")
    expect(box).to_have_css("background-color", "rgb(59, 13, 13)")
    assert not findings(dark)
    hub.repositories["stabilityai/stable-diffusion-3.5-medium"].accepted = GOOD
    tab.choose_model("3.5 Medium")
    tab.draw()
    tab.page.reload()
    expect(tab.draw_button).to_be_visible()
    expect(ready).to_be_hidden()
