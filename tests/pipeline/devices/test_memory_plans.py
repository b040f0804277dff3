"""Each memory plan draws; those that keep the mathematics draw the very picture that everything on the GPU
does, the others say what suffers. Which plan a card gets follows from its memory and its host's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import diffusers
import numpy as np
import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import modules
from diffusers.hooks import HookRegistry
from transformers import T5EncoderModel

from pipeline.catalog.catalogue import read_catalogue
from pipeline.catalog.spec import Needs
from pipeline.devices.hardware import Device, Wanted, device_for, plan_for
from pipeline.devices.memory_plans import PLANS, cheaper, fitting, plan_named
from pipeline.engine import Engine
from pipeline.events import Event
from tests.inside.sitecustomize import packed_product
from tests.support.tiny import (
    ROOT,
    catalogue,
    draw,
    entry,
    pixels,
    stand_in_gpu,
    tiny_sd3,
    tiny_sd35,
    tiny_z_image,
)

GB = 10**9
TINY = {"model": "tiny", "width": 64, "height": 64}
KNOWN = {"transformer": 1e-6, "large_text_encoder": 1e-6, "t5": True}
"""Next to nothing, but known."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Device:
    return stand_in_gpu(monkeypatch)


def drawn(folder: Path, tmp_path: Path, plan: str | None = None, **values: Any) -> Event:
    changes = {} if plan is None else {"plan": plan}
    engine = Engine(catalogue(tmp_path, entry(folder, device=None, needs=KNOWN, **changes)))
    event = draw(engine, **TINY | values)
    assert event.phase == "finished", event.error
    return event


@pytest.mark.parametrize("plan", ["encoders-off", "offload"])
def test_a_plan_that_keeps_the_mathematics_draws_the_very_same_picture(
    gpu: Device, tiny_folder: Path, tmp_path: Path, plan: str
) -> None:
    resident, other = drawn(tiny_folder, tmp_path), drawn(tiny_folder, tmp_path, plan)
    assert (resident.plan, other.plan) == ("resident", plan)
    assert np.array_equal(pixels(resident.images[0]), pixels(other.images[0]))
    assert other.warnings == ()
    assert other.info()["plan"] == plan


@pytest.mark.parametrize("plan", ["encoders-off", "offload"])
def test_those_plans_draw_the_same_picture_of_another_family_too(
    gpu: Device, tmp_path: Path, plan: str
) -> None:
    folder = tiny_z_image(tmp_path / "z")
    pictures = []
    for chosen in ("resident", plan):
        spec = entry(folder, device=None, needs=KNOWN, family="z-image", preview="flux", plan=chosen)
        event = draw(Engine(catalogue(tmp_path, spec)), **TINY)
        assert event.phase == "finished", event.error
        pictures.append(pixels(event.images[0]))
    assert np.array_equal(*pictures)


@pytest.fixture(params=["unpacked", "packed"])
def quantizing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets this machine quantize, each way that bitsandbytes (0.50.2) takes on a CPU: with AVX512-BF16 it
    keeps 4-bit weights packed. Looks that it took that way."""
    # diffusers (0.42) quantizes on a GPU only, and asks torch for one; bitsandbytes itself does so on a CPU.
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    packed = request.param == "packed"
    if packed and not functional.has_avx512bf16():
        monkeypatch.setattr(functional, "gemv_4bit", packed_product)
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: packed)
    products: list[bool] = []
    product = bitsandbytes.matmul_4bit

    def noted(*args: Any, quant_state: Any, **kwargs: Any) -> torch.Tensor:
        products.append(getattr(quant_state, "packing_format_for_cpu", False))
        return product(*args, quant_state=quant_state, **kwargs)

    monkeypatch.setattr(bitsandbytes, "matmul_4bit", noted)
    yield
    assert set(products) == {packed}


@pytest.mark.parametrize(
    "plan, words", [("quantized", ["4 bits", "8"]), ("without-t5", ["4 bits", "without T5", "words"])]
)
def test_a_plan_that_changes_the_picture_says_so(
    gpu: Device, quantizing: None, tiny_folder: Path, tmp_path: Path, plan: str, words: list[str]
) -> None:
    resident, other = drawn(tiny_folder, tmp_path), drawn(tiny_folder, tmp_path, plan)
    (warning,) = other.warnings
    for word in words:
        assert word in warning
    difference = np.abs(pixels(resident.images[0]) - pixels(other.images[0])).mean()
    assert 0 < difference < 64  # of 255: another picture, and a picture


def test_another_family_draws_in_4_bits_too(gpu: Device, quantizing: None, tmp_path: Path) -> None:
    folder = tiny_z_image(tmp_path / "z")
    spec = entry(folder, device=None, needs=KNOWN, family="z-image", preview="flux", plan="quantized")
    event = draw(Engine(catalogue(tmp_path, spec)), **TINY)
    assert event.phase == "finished", event.error
    assert event.plan == "quantized"


@pytest.mark.parametrize("make", [tiny_sd3, tiny_sd35, partial(tiny_sd35, medium=True), tiny_z_image])
def test_the_tiny_models_have_shapes_that_every_way_of_4_bits_takes_as_real_models_have(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """Rows in blocks of 32, scales for 64 weights of one row."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(make(tmp_path / "model"))
    for name, layer in pipe.transformer.named_modules():
        if isinstance(layer, torch.nn.Linear):
            assert (layer.out_features % 32, layer.in_features % 64) == (0, 0), (name, layer)


def test_a_model_that_is_bound_to_the_cpu_is_never_quantized_there() -> None:
    large = read_catalogue(ROOT / "models.yaml")["sd3.5-large"]
    chosen = large.model_copy(update={"plan": "quantized", "device": "cpu"})
    device = device_for(chosen)
    assert plan_for(chosen, device, Wanted(plan="without-t5")) is plan_named("resident")


def test_without_t5_the_end_of_a_long_prompt_is_said_to_be_unread(
    gpu: Device, quantizing: None, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = T5EncoderModel.forward
    calls = []
    monkeypatch.setattr(
        T5EncoderModel, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs)
    )
    event = drawn(tiny_folder, tmp_path, "without-t5", prompt="a fox " * 60 + "and a tree")
    assert any("too long for this model. Not read: “" in words for words in event.warnings)
    assert calls == []


def test_streamed_blocks_leave_no_hooks_behind_when_the_plan_ends(
    gpu: Device, tiny_folder: Path, tmp_path: Path
) -> None:
    needs = KNOWN
    entries = [
        entry(tiny_folder, name, device=None, needs=needs, plan=plan)
        for name, plan in (("streaming", "offload"), ("resident", "resident"))
    ]
    engine = Engine(catalogue(tmp_path, *entries))
    pictures = []
    for model in ("resident", "streaming", "resident"):
        event = draw(engine, **TINY | {"model": model})
        assert event.phase == "finished", event.error
        pictures.append(pixels(event.images[0]))
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])
    (memory,) = engine._local["cuda"]._memories.values()
    for one in memory.residency._loaded.values():
        for module in one.module.modules():
            registry = getattr(module, "_diffusers_hook", None)
            assert registry is None or not isinstance(registry, HookRegistry) or not registry.hooks


H200, A100, L40S, A10G, T4 = 141, 80, 48, 24, 16
LARGE, MEDIUM, Z = "sd3.5-large", "sd3.5-medium", "z-image-turbo"


@pytest.mark.parametrize(
    "card, host, plans",
    [
        (H200, 120, {LARGE: "resident", MEDIUM: "resident", Z: "resident"}),
        (A100, 60, {LARGE: "resident", MEDIUM: "resident", Z: "resident"}),
        (L40S, 40, {LARGE: "resident", MEDIUM: "resident", Z: "resident"}),
        (A10G, 40, {LARGE: "encoders-off", MEDIUM: "resident", Z: "encoders-off"}),
        (A10G, 12, {LARGE: "quantized", MEDIUM: "resident", Z: "quantized"}),
        (T4, 40, {LARGE: "offload", MEDIUM: "encoders-off", Z: "offload"}),
        (T4, 12, {LARGE: "quantized", MEDIUM: "quantized", Z: "quantized"}),
        (10, 12, {LARGE: "without-t5", MEDIUM: "without-t5", Z: None}),
        (6, 40, {LARGE: "offload", MEDIUM: "offload", Z: "offload"}),
        (4, 12, {LARGE: None, MEDIUM: None, Z: None}),
    ],
)
def test_each_card_gets_the_fastest_plan_that_fits_it_and_its_host(
    card: int, host: int, plans: dict[str, str | None]
) -> None:
    device = Device("cuda", "bfloat16", (card - 1) * GB, "a card", host * GB)
    models = read_catalogue(ROOT / "models.yaml")
    chosen = {model: plan_for(models[model], device) for model in plans}
    assert {model: plan and plan.name for model, plan in chosen.items()} == plans


def test_the_owner_or_the_entry_can_choose_a_plan() -> None:
    device = Device("cuda", "bfloat16", 140 * GB, "a card", 100 * GB)
    large = read_catalogue(ROOT / "models.yaml")["sd3.5-large"]
    assert plan_for(large, device, Wanted(plan="quantized")) is plan_named("quantized")
    chosen = large.model_copy(update={"plan": "offload"})
    assert plan_for(chosen, device, Wanted(plan="quantized")) is plan_named("offload")


def test_every_cheaper_plan_needs_less_of_the_gpu_until_there_is_none() -> None:
    for spec in read_catalogue(ROOT / "models.yaml"):
        if not spec.needs.known:
            continue
        for host in (0.0, 100.0):
            plan, memory = PLANS[0], PLANS[0].gpu_memory(spec.needs)
            while (following := cheaper(plan, spec.needs, host)) is not None:
                assert following.gpu_memory(spec.needs) < memory
                assert following.host_memory(spec.needs) <= host
                plan, memory = following, following.gpu_memory(spec.needs)
            assert plan is not PLANS[0]


def test_more_memory_never_gives_a_slower_plan() -> None:
    needs = Needs(transformer=16.1, text_encoders=1.7, large_text_encoder=9.6, drawing=3.5, t5=True)
    order = [PLANS.index(next(fitting(needs, memory, 100), PLANS[-1])) for memory in range(6, 60)]
    assert order == sorted(order, reverse=True)


def test_a_model_whose_only_text_encoder_is_no_t5_keeps_it_whatever_is_wanted() -> None:
    device = Device("cuda", "bfloat16", 140 * GB, "a card", 100 * GB)
    models = read_catalogue(ROOT / "models.yaml")
    assert plan_for(models["z-image-turbo"], device, Wanted(plan="without-t5")) is plan_named("quantized")
    assert plan_for(models["sd3.5-medium"], device, Wanted(plan="without-t5")) is plan_named("without-t5")
