"""The owner's card says what is missing here, where it is given, and claims nothing that nobody knows."""

from __future__ import annotations

import re

import pytest

from pipeline.catalog.catalogue import Catalogue, read_catalogue
from pipeline.engine import Engine
from pipeline.weights.requirements import Requirement
from tests.support.tiny import ROOT
from ui.controls import controls
from ui.setup_card import setup_card

CATALOGUE: Catalogue = read_catalogue(ROOT / "models.yaml")
GPU, TOKEN, DISK = (Requirement(what, what.upper(), False) for what in ("hardware", "token", "disk"))


def rows(words: str) -> list[str]:
    return re.findall("<li.*?</li>", words)


def text(words: str) -> str:
    return re.sub("<.*?>", "", words)


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
    monkeypatch: pytest.MonkeyPatch, space: str | None, missing: list[Requirement], words: str
) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    if space:
        monkeypatch.setenv("SPACE_ID", space)
    card = setup_card(CATALOGUE, {spec.id: missing for spec in CATALOGUE})
    assert text(card.split("</p>")[0]) == words
    assert (f"https://huggingface.co/spaces/{space}/settings" in card) == (space is not None)


def test_where_every_model_can_run_there_is_no_card() -> None:
    here = [Requirement("hardware", "Here.", True)]
    assert setup_card(CATALOGUE, {spec.id: here for spec in CATALOGUE}) == ""


def test_with_a_token_and_no_gpu_the_page_names_the_gpu_alone_and_leaves_the_licence_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_some")
    monkeypatch.delenv("SPACE_ID", raising=False)
    engine = Engine(CATALOGUE)
    needs = {spec.id: engine.requirements(spec) for spec in CATALOGUE}
    about = {
        model["id"]: controls(model, 1, "", needs[model["id"]])["about"]["value"] for model in engine.models()
    }
    for model, best in {"sd3.5-large-turbo": 31, "sd3.5-medium": 20, "z-image-turbo": 24}.items():
        words = f"Needs a GPU: {best} GB of its memory are best, 5 GB the least; this machine has none."
        assert [text(row) for row in rows(about[model])] == [f"{words} Where to get it"]
    assert "missing" not in about["sketch"]
    setup = setup_card(CATALOGUE, needs)
    assert "The hardware is this machine’s." in setup
    assert "Set HF_TOKEN" not in setup
    medium = rows(next(section for section in setup.split("<section>") if "3.5 Medium</h3>" in section))
    assert [re.findall("^<li class='(.*?)'", row) for row in medium[:3]] == [
        ["missing"],
        ["met"],
        ["unknown"],
    ]
    assert len(medium) == 4
    assert "unknown: The token’s account must have accepted" in text(medium[2])
