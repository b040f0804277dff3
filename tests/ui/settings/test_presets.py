"""Each model's presets come from its own limits: sizes it draws, of the shape they are called by."""

from __future__ import annotations

import math

import pytest

from pipeline.catalog.catalogue import Catalogue, read_catalogue
from pipeline.engine import Engine
from tests.support.tiny import ROOT
from ui.controls import ASPECTS, controls, sizes

CATALOGUE: Catalogue = read_catalogue(ROOT / "models.yaml")
ENGINE = Engine(CATALOGUE)
MODELS = {model["id"]: model for model in ENGINE.models()}


@pytest.mark.parametrize("model", MODELS)
def test_every_preset_is_drawn_as_it_is_and_has_its_shape(model: str) -> None:
    limits = MODELS[model]["limits"]
    for area, presets in sizes(MODELS[model]).items():
        assert presets.keys() == ASPECTS.keys()
        for aspect, (width, height) in presets.items():
            job = ENGINE.resolve({"prompt": "a", "model": model, "width": width, "height": height})
            assert (job.width, job.height) == (width, height)
            assert not [warning for warning in job.warnings if "instead of" in warning]
            across, down = ASPECTS[aspect]
            assert width / height == pytest.approx(across / down, rel=0.05), (area, aspect)
            budget = int(area.removesuffix("²")) ** 2
            bound_by_side = max(width, height) > limits["side"][1] - limits["multiple"]
            assert bound_by_side or width * height >= 0.95 * budget, (area, aspect)


@pytest.mark.parametrize("model", MODELS)
def test_the_first_preset_is_the_models_default_size(model: str) -> None:
    defaults = MODELS[model]["defaults"]
    first = next(iter(sizes(MODELS[model]).values()))
    assert first["1:1"] == (defaults["width"], defaults["height"])


def test_medium_and_z_image_offer_their_two_megapixels_too_and_large_has_none_to_offer() -> None:
    areas = {name: list(sizes(model)) for name, model in MODELS.items()}
    assert areas == {
        "sd3.5-large": ["1024²"],
        "sd3.5-large-turbo": ["1024²"],
        "sd3.5-medium": ["1024²", "1440²"],
        "z-image-turbo": ["1024²", "1536²"],
        "sketch": ["256²", "512²"],
    }
    for name, model in MODELS.items():
        most = MODELS[name]["limits"]["pixels"][1]
        width, height = sizes(model)[areas[name][-1]]["1:1"]
        assert width * height == most == math.isqrt(most) ** 2


@pytest.mark.parametrize("model", MODELS)
def test_a_choice_of_areas_is_shown_where_there_is_one(model: str) -> None:
    area = controls(MODELS[model], 1, "", [])["area"]
    assert area["visible"] == (len(area["choices"]) > 1)
    assert area["value"] == area["choices"][0][0]
