"""The owner's card says what is missing here, where it is given, and claims nothing that nobody knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from pipeline.catalogue import Catalogue, read_catalogue
from pipeline.hardware import Need
from tests.conftest import serve
from tests.tiny import ROOT
from tests.ui.studio import Studio
from ui.setup_card import setup_card

CATALOGUE: Catalogue = read_catalogue(ROOT / "models.yaml")
GPU, TOKEN, DISK = (Need(what, what.upper(), False) for what in ("hardware", "token", "disk"))


@pytest.mark.parametrize(
    "space, missing, words",
    [
        (None, [GPU], "The hardware is this machine’s."),
        (None, [TOKEN], "Set HF_TOKEN in the environment and start again."),
        (
            None,
            [GPU, TOKEN],
            "Set HF_TOKEN in the environment and start again. The hardware is this machine’s.",
        ),
        ("me/it", [GPU], "Choose hardware in its settings."),
        ("me/it", [GPU, TOKEN], "Choose hardware and add the secret HF_TOKEN in its settings."),
        ("me/it", [DISK], "Attach storage in its settings."),
    ],
)
def test_it_asks_only_for_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, space: str | None, missing: list[Need], words: str
) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    if space:
        monkeypatch.setenv("SPACE_ID", space)
    card = setup_card(CATALOGUE, {spec.id: missing for spec in CATALOGUE})
    assert re.sub("<.*?>", "", card.split("</p>")[0]) == words
    assert (f"https://huggingface.co/spaces/{space}/settings" in card) == (space is not None)


def test_where_every_model_can_run_there_is_no_card() -> None:
    assert setup_card(CATALOGUE, {spec.id: [Need("hardware", "Here.", True)] for spec in CATALOGUE}) == ""


def test_with_a_token_and_no_gpu_the_page_names_the_gpu_alone_and_leaves_the_licence_open(
    tmp_path: Path, open_tab: Callable[..., Studio]
) -> None:
    with serve(tmp_path, HF_TOKEN="hf_some") as url:
        tab = open_tab(url=url)
        about = tab.page.locator("#about .missing li")
        for name, best in {"Large Turbo": 31, "3.5 Medium": 20, "Z-Image": 24}.items():
            tab.choose_model(name)
            words = f"Needs a GPU: {best} GB of its memory are best, 5 GB the least; this machine has none."
            expect(about).to_have_text([f"{words} Where to get it"])
        tab.page.get_by_role("button", name="What the other models need").click()
        setup = tab.page.locator("#setup")
        expect(setup).to_contain_text("The hardware is this machine’s.")
        expect(setup).not_to_contain_text("Set HF_TOKEN")
        medium = setup.locator("section", has_text="Medium").locator("li")
        expect(medium).to_have_count(4)
        expect(medium.nth(0)).to_have_class("missing")
        expect(medium.nth(1)).to_have_class("met")
        expect(medium.nth(2)).to_have_class("unknown")
        expect(medium.nth(2)).to_contain_text("unknown: The token’s account must have accepted")
        tab.choose_model("Sketch")
        expect(about).to_have_count(0)
        tab.page.wait_for_function("!document.querySelector('#coming .row')")  # it is ready
        tab.page.close()
