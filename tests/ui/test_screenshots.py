"""The README's pictures: taken and checked at every run; STEPWISE_SCREENSHOTS=1 puts them in place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.support.steps import Steps
from tests.ui.conftest import PHONE
from tests.ui.studio import Studio

MOST = 250_000
"""Bytes of one picture: a README should load at once."""
FOX = "5"
"""A seed whose fox is easy to see half-way."""
KEPT = os.environ.get("STEPWISE_SCREENSHOTS") == "1"
STEPS, EARLIER, HALF_WAY = (28, 14, 9) if KEPT else (8, 2, 4)
"""Of the fox, of each drawing before it, and the one at which it is caught; fewer where nobody will look."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if KEPT:
        return Path(__file__).parent.parent.parent / "docs" / "screenshots"
    return tmp_path


def take(tab: Studio, path: Path) -> None:
    """Saves what the window shows; in 256 colours where that is too large."""
    tab.page.mouse.move(0, 0)
    tab.page.screenshot(path=path, animations="disabled")
    with Image.open(path) as picture:
        size = picture.size
        if path.stat().st_size >= MOST:
            picture.convert("RGB").quantize(256).save(path, optimize=True)
    viewport = tab.page.viewport_size
    assert viewport and size == (viewport["width"], viewport["height"])
    assert 10_000 < path.stat().st_size < MOST


def prepare(tab: Studio, history: tuple[str, ...]) -> None:
    """Draws these prompts first, then sets the fox's seed and folds the settings again."""
    for prompt in history:
        tab.set(steps=EARLIER)
        tab.draw(prompt)
    tab.set(steps=STEPS)
    tab.seed.fill(FOX)
    tab.close_settings()
    tab.prompt.fill("a fox on a blue background")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.sketch
def test_the_screenshots_of_a_laptop(
    open_tab: Callable[..., Studio], folder: Path, scheme: str, steps: Steps
) -> None:
    tab = open_tab(color_scheme=scheme)
    prepare(tab, ("a red apple", "a rocket to the left of a tulip") if scheme == "light" else ())
    if scheme == "light":
        steps.hold(HALF_WAY)
        tab.draw_button.click()
        tab.wait_for_step(HALF_WAY)
        take(tab, folder / "drawing.png")
        steps.go_on()
        tab.wait_for("finished")
    else:
        tab.draw()
    take(tab, folder / {"light": "desktop.png", "dark": "dark.png"}[scheme])


@pytest.mark.sketch
def test_the_screenshot_of_a_phone(open_tab: Callable[..., Studio], folder: Path) -> None:
    tab = open_tab(viewport=PHONE)
    prepare(tab, ())
    tab.draw()
    take(tab, folder / "phone.png")
