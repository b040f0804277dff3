"""What a network is known by has its profile and its patches: two profiles of one network are two residents,
read on their own, and neither their embeddings nor their recipes nor their estimates are taken for each
other's. There is one profile so far, and no patch: the others here are names without an effect."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.devices.memory_plans import RESIDENT
from pipeline.engine import Engine
from pipeline.executors.zerogpu_seconds import GpuSeconds
from pipeline.families import FAMILIES
from pipeline.weights.model import Weights, find_weights
from pipeline.weights.patches import NO_PATCHES, Patch, Patches
from pipeline.weights.profile import STOCK, Profile
from pipeline.weights.residency import Residency
from tests.support.tiny import catalogue, draw, entry, stand_in_gpu

FAST = Profile("fast")
INK = Patches((Patch("transformer", "ink at 0.8"),))
SIZE = {"model": "tiny", "width": 64, "height": 64, "steps": 1}
NETWORKS = ["text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"]


@pytest.fixture
def engine(tiny_folder: Path, tmp_path: Path) -> Engine:
    return Engine(catalogue(tmp_path, entry(tiny_folder)))


def choose(monkeypatch: pytest.MonkeyPatch, profile: Profile = STOCK, patches: Patches = NO_PATCHES) -> None:
    """Stands in for what will choose them."""
    for module in ("local", "zerogpu_seconds"):
        monkeypatch.setattr(f"pipeline.executors.{module}.profile_of", lambda _: profile)
        monkeypatch.setattr(f"pipeline.executors.{module}.patches_of", lambda _: patches)


def test_two_profiles_of_one_network_are_two_residents_that_never_mix(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = stand_in_gpu(monkeypatch)
    spec = catalogue(tmp_path, entry(tiny_folder, device=None))["tiny"]

    def weights(profile: Profile, patches: Patches = NO_PATCHES) -> Weights:
        return find_weights(spec, tiny_folder, gpu, RESIDENT, profile, patches)

    residency = Residency(gpu)
    read = {
        name: residency.bring(one.networks, 0, lambda *_: None)
        for name, one in {"stock": weights(STOCK), "fast": weights(FAST)}.items()
    }
    assert sorted(one.name for one in residency.contents()) == sorted(NETWORKS * 2)
    assert all(read["stock"][name] is not read["fast"][name] for name in NETWORKS)
    tensors = [{tensor.data_ptr() for tensor in read[name]["transformer"].parameters()} for name in read]
    assert not tensors[0] & tensors[1]
    for profile, name in ((STOCK, "stock"), (FAST, "fast")):
        again = residency.bring(weights(profile).networks, 0, lambda *_: None)
        assert all(again[network] is read[name][network] for network in NETWORKS)
    patched = residency.bring(weights(STOCK, INK).networks, 0, lambda *_: None)
    assert [name for name in NETWORKS if patched[name] is not read["stock"][name]] == ["transformer"]
    assert len(residency.contents()) == 2 * len(NETWORKS) + 1


def test_embeddings_of_one_profile_are_not_anothers_and_patches_of_the_transformer_alone_leave_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    family = FAMILIES["sd3"]
    real = family.encode

    def encode(pipe: Any, prompt: str, negative: str | None, tokens: int) -> dict[str, Any]:
        encoded.append(prompt)
        return real(pipe, prompt, negative, tokens)

    monkeypatch.setitem(FAMILIES, "sd3", replace(family, encode=encode))
    for profile, patches, times in (
        (STOCK, NO_PATCHES, 1),
        (STOCK, NO_PATCHES, 1),
        (FAST, NO_PATCHES, 2),
        (STOCK, INK, 2),
        (STOCK, Patches((Patch("text_encoder_2", "ink"),)), 3),
        (FAST, NO_PATCHES, 3),
    ):
        choose(monkeypatch, profile, patches)
        assert draw(engine, **SIZE).phase == "finished"
        assert len(encoded) == times


def test_two_families_that_read_with_the_same_files_do_not_share_what_they_read(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES["sd3"]

    def louder(*args: Any) -> dict[str, Any]:
        return {name: value * 9 for name, value in family.encode(*args).items()}

    monkeypatch.setitem(FAMILIES, "louder", replace(family, encode=louder))
    engine = Engine(
        catalogue(tmp_path, entry(tiny_folder), entry(tiny_folder, "other", family="louder", preview=None))
    )
    one, other = (draw(engine, **SIZE | {"model": name}).images[0] for name in ("tiny", "other"))
    assert Image.open(io.BytesIO(one)).tobytes() != Image.open(io.BytesIO(other)).tobytes()


def recipe(png: bytes) -> tuple[dict[str, Any], str]:
    with Image.open(io.BytesIO(png)) as image:
        return json.loads(image.info["stepwise"])["made_with"], image.info["parameters"]


def test_a_recipe_says_profile_and_patches_and_its_text_only_what_is_unusual(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_with, text = recipe(draw(engine, **SIZE).images[0])
    assert (made_with["profile"], made_with["patches"]) == ("stock", [])
    assert "rofile" not in text and "atches" not in text
    choose(monkeypatch, FAST, INK)
    made_with, unusual = recipe(draw(engine, **SIZE | {"seed": 7}).images[0])
    assert (made_with["profile"], made_with["patches"]) == ("fast", ["transformer:ink at 0.8"])
    assert 'Model: tiny, Profile: fast, Patches: "transformer:ink at 0.8", Version' in unusual
    assert unusual.replace('Profile: fast, Patches: "transformer:ink at 0.8", ', "") == text


def test_what_zerogpu_is_asked_for_is_corrected_for_each_profile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, job = engine.catalogue["tiny"], engine.check(SIZE | {"prompt": "a fox"})
    asks = GpuSeconds("large", held=0)
    before = asks.needed(job, spec)
    choose(monkeypatch, FAST)
    asks.drawn(job, spec, 10_000)
    assert asks.needed(job, spec) > before
    choose(monkeypatch)
    assert asks.needed(job, spec) == before
