"""Networks that are the same are loaded once, whatever model they belong to; what was used longest ago leaves
the GPU for host memory, and that for good, within their budgets."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import SD3Transformer2DModel

from pipeline.catalog.spec import PlanName
from pipeline.devices.memory_plans import RESIDENT
from pipeline.engine import Engine
from pipeline.weights.model import find_weights
from pipeline.weights.patches import NO_PATCHES
from pipeline.weights.profile import STOCK
from pipeline.weights.residency import Residency
from tests.support.services.hub import Repository, serve_hub, use_hub
from tests.support.tiny import SKETCH, catalogue, draw, entry, pixels, stand_in_gpu, variant

SHARED = ["text_encoder", "text_encoder_2", "text_encoder_3", "vae"]
NAMES = ("one", "two", "three")
KNOWN = {"transformer": 1e-6, "large_text_encoder": 1e-6}
"""What a model weighs, in GB: next to nothing, but known, so that a plan is chosen for it."""


@pytest.fixture
def three(tiny_folder: Path, tmp_path: Path) -> list[Path]:
    """Three variants over the same text encoders and VAE."""
    return [variant(tmp_path / name, tiny_folder, seed=seed) for seed, name in enumerate(NAMES)]


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What loading reports, call by call; a drawing's readers see the newest only."""
    reports: list[tuple[int, int]] = []
    bring = Residency.bring

    def noted(self: Residency, wanted: Any, room: int, report: Any, **options: Any) -> Any:
        def note(done: int, total: int) -> None:
            reports.append((done, total))
            report(done, total)

        return bring(self, wanted, room, note, **options)

    monkeypatch.setattr(Residency, "bring", noted)
    return reports


def engine_of(folders: list[Path], tmp_path: Path, **changes: Any) -> Engine:
    changes = {"device": None, "needs": KNOWN} | changes
    return Engine(catalogue(tmp_path, *(entry(folder, folder.name, **changes) for folder in folders)))


def a_picture(engine: Engine, model: str, **values: Any) -> np.ndarray:
    event = draw(engine, model=model, width=64, height=64, **values)
    assert event.phase == "finished", event.error
    return pixels(event.images[0])


def tiers(engine: Engine) -> Counter[tuple[str, str]]:
    return Counter((one.name, one.tier) for one in engine.residency())


def test_a_second_variant_costs_its_transformer_only(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_gpu(monkeypatch)
    engine = engine_of(three, tmp_path)
    a_picture(engine, "one")
    before = sum(one.size for one in engine.residency())
    a_picture(engine, "two")
    transformer = SD3Transformer2DModel.from_pretrained(three[1] / "transformer")
    added = sum(one.size for one in engine.residency()) - before
    assert added == sum(tensor.nbytes for tensor in (*transformer.parameters(), *transformer.buffers()))
    assert tiers(engine) == {("transformer", "device"): 2, **{(name, "device"): 1 for name in SHARED}}


def test_variants_drawn_with_shared_networks_are_the_pictures_they_are_alone(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_gpu(monkeypatch)
    alone = [a_picture(engine_of([folder], tmp_path), folder.name) for folder in three]
    engine = engine_of(three, tmp_path)
    for turn in (0, 1, 2, 1, 0):
        assert np.array_equal(a_picture(engine, NAMES[turn]), alone[turn])
    assert not np.array_equal(alone[0], alone[1])


@pytest.mark.parametrize("changed", ["weights", "config"])
def test_networks_that_differ_in_weights_or_config_are_not_shared(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    stand_in_gpu(monkeypatch)
    other = Path(
        shutil.copytree(tiny_folder, tmp_path / "other", copy_function=lambda a, b: Path(b).hardlink_to(a))
    )
    if changed == "weights":
        (file,) = (other / "vae").glob("*.safetensors")
        whole = file.read_bytes()
        file.unlink()
        file.write_bytes(whole)  # a file of its own: that its content is the same is not for hope
    else:
        file = other / "vae" / "config.json"
        config = json.loads(file.read_text())
        file.unlink()
        file.write_text(json.dumps(config | {"scaling_factor": 0.5}))
    engine = engine_of([tiny_folder, other], tmp_path)
    for name in (tiny_folder.name, "other"):
        a_picture(engine, name)
    assert tiers(engine)["vae", "device"] == 2
    assert tiers(engine)["transformer", "device"] == 1


def test_models_of_the_hub_share_what_the_hub_says_has_the_same_sha256(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_gpu(monkeypatch)
    copies = [Path(shutil.copytree(folder, tmp_path / f"{folder.name} copied")) for folder in three[:2]]
    with serve_hub() as hub:
        hub.repositories = {f"me/{n}": Repository(folder) for n, folder in zip(NAMES, copies, strict=False)}
        use_hub(monkeypatch, hub, tmp_path / "hub", None)
        entries = [entry(Path(f"me/{n}"), n, device=None, needs=KNOWN) for n in NAMES[:2]]
        engine = Engine(catalogue(tmp_path, *entries))
        for name in NAMES[:2]:
            a_picture(engine, name)
    assert tiers(engine) == {("transformer", "device"): 2, **{(name, "device"): 1 for name in SHARED}}


def sizes(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[int, int]:
    """Bytes of a variant's transformer, and of what the variants share."""
    gpu = stand_in_gpu(monkeypatch)
    engine = engine_of([folder], tmp_path)
    networks = find_weights(engine.catalogue[folder.name], folder, gpu, RESIDENT, STOCK, NO_PATCHES)
    residency = Residency(gpu)
    residency.bring(networks.networks, 0, lambda *_: None)
    known = {one.name: one.size for one in residency.contents()}
    return known.pop("transformer"), sum(known.values())


def test_the_least_recently_drawn_transformer_moves_to_host_memory_and_back(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[tuple[int, int]]
) -> None:
    def loaded(model: str) -> int:
        reports.clear()
        a_picture(engine, model)
        return reports[-1][1] if reports else 0

    transformer, shared = sizes(three[0], monkeypatch, tmp_path)
    stand_in_gpu(monkeypatch, memory=shared + 2 * transformer + transformer // 2)
    engine = engine_of(three, tmp_path)
    first = a_picture(engine, "one")
    assert loaded("two") == 1
    assert loaded("one") == 0
    assert loaded("three") == 1  # two leaves
    assert tiers(engine) == {
        ("transformer", "device"): 2, ("transformer", "host"): 1, **{(name, "device"): 1 for name in SHARED},
    }  # fmt: skip
    assert loaded("one") == 0
    assert loaded("two") == 1  # back from host memory; three leaves
    assert np.array_equal(a_picture(engine, "one"), first)


def test_what_is_on_the_gpu_never_passes_its_budget(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, shared = sizes(three[0], monkeypatch, tmp_path)
    budget = shared + transformer + transformer // 2
    stand_in_gpu(monkeypatch, memory=budget, host_memory=transformer + transformer // 2)
    engine = engine_of(three, tmp_path)
    for name in (*NAMES, *NAMES[::-1]):
        a_picture(engine, name)
        assert sum(one.size for one in engine.residency() if one.tier == "device") <= budget
        assert sum(one.size for one in engine.residency() if one.tier == "host") <= 2 * transformer


def test_where_host_memory_has_no_room_what_leaves_the_gpu_is_gone_and_read_again(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, shared = sizes(three[0], monkeypatch, tmp_path)
    stand_in_gpu(monkeypatch, memory=shared + transformer + transformer // 2, host_memory=0)
    engine = engine_of(three, tmp_path)
    first = a_picture(engine, "one")
    a_picture(engine, "two")
    assert ("transformer", "host") not in tiers(engine)
    assert tiers(engine)["transformer", "device"] == 1
    assert np.array_equal(a_picture(engine, "one"), first)


def test_host_memory_keeps_the_most_recently_drawn(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, shared = sizes(three[0], monkeypatch, tmp_path)
    room = transformer + transformer // 2
    stand_in_gpu(monkeypatch, memory=shared + room, host_memory=room)
    engine = engine_of(three, tmp_path)
    reads: list[str] = []
    whole = SD3Transformer2DModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def from_pretrained(kind: Any, folder: Path, **options: Any) -> Any:
        reads.append(folder.parent.name)
        return whole(kind, folder, **options)

    monkeypatch.setattr(SD3Transformer2DModel, "from_pretrained", classmethod(from_pretrained))
    for name in ("one", "two", "three", "two", "one"):
        a_picture(engine, name)
    # two came back from host memory, where it had replaced one, which was read again.
    assert reads == ["one", "two", "three", "one"]


def test_twenty_switches_leave_memory_as_it_was(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, shared = sizes(three[0], monkeypatch, tmp_path)
    stand_in_gpu(monkeypatch, memory=shared + transformer + transformer // 2)
    engine = engine_of(three[:2], tmp_path)
    for name in NAMES[:2]:
        a_picture(engine, name)
    before = sorted((one.name, one.size, one.tier) for one in engine.residency())
    for name in NAMES[:2] * 10:
        a_picture(engine, name, steps=1)
    assert sorted((one.name, one.size, one.tier) for one in engine.residency()) == before


def test_loading_counts_the_networks_it_loads(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[tuple[int, int]]
) -> None:
    stand_in_gpu(monkeypatch)
    engine = engine_of(three, tmp_path)
    a_picture(engine, "one")
    assert reports == [(done, 5) for done in range(6)]
    reports.clear()
    a_picture(engine, "two")
    assert reports == [(0, 1), (1, 1)]
    reports.clear()
    a_picture(engine, "two")
    assert reports == []


def test_the_embedded_model_on_the_cpu_leaves_no_gpu_memory_to_account_for() -> None:
    engine = Engine(catalogue_of_sketch())
    draw(engine, steps=1)
    assert {one.tier for one in engine.residency()} == {"device"}


def catalogue_of_sketch() -> Any:
    from pipeline.catalog.catalogue import Catalogue, read_catalogue

    return Catalogue([read_catalogue(SKETCH.parent.parent / "models.yaml")["sketch"]])


def test_a_model_is_ready_while_all_its_networks_are_on_the_gpu(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformer, shared = sizes(three[0], monkeypatch, tmp_path)
    stand_in_gpu(monkeypatch, memory=shared + 2 * transformer + transformer // 2)
    engine = engine_of(three, tmp_path)
    assert engine.ready_models() == ()
    a_picture(engine, "one")
    assert engine.ready_models() == ("one",)
    a_picture(engine, "two")
    assert engine.ready_models() == ("one", "two")
    a_picture(engine, "three")  # one leaves
    assert engine.ready_models() == ("two", "three")


@pytest.mark.parametrize("plan, in_host", [("encoders-off", 1), ("offload", 2)])
def test_under_a_plan_that_moves_networks_while_it_draws_a_model_is_ready_while_none_must_be_read(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: PlanName, in_host: int
) -> None:
    transformer, shared = sizes(three[0], monkeypatch, tmp_path)
    stand_in_gpu(monkeypatch, host_memory=shared + in_host * transformer + transformer // 2)
    engine = engine_of(three, tmp_path, plan=plan)
    for drawn, ready in (("one", ("one",)), ("two", ("one", "two")), ("three", ("two", "three"))):
        a_picture(engine, drawn, prompt=drawn)  # a new one, so that the text encoders are used, too
        assert engine.ready_models() == ready


def test_the_embedded_model_is_ready_once_it_has_drawn() -> None:
    engine = Engine(catalogue_of_sketch())
    assert engine.ready_models() == ()
    draw(engine, steps=1)
    assert engine.ready_models() == ("sketch",)
