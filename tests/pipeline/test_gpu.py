"""The same engine on a CUDA GPU: the embedded model, let off its leash to the CPU."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.catalog.catalogue import Catalogue, read_catalogue
from pipeline.devices.hardware import device_for
from pipeline.devices.memory_plans import PLANS
from pipeline.engine import Engine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; this machine has none"),
]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def engine() -> Engine:
    sketch = read_catalogue(ROOT / "models.yaml")["sketch"]
    on_gpu = sketch.model_copy(update={"id": "on-gpu", "device": None})
    plans = [on_gpu.model_copy(update={"id": plan.name, "plan": plan.name}) for plan in PLANS]
    return Engine(Catalogue([sketch, on_gpu, *plans]))


def picture(engine: Engine, model: str) -> np.ndarray:
    job = engine.resolve({"prompt": "a fox on a blue background", "model": model, "seed": 1})
    event = engine.start(job).result()
    assert event.phase == "finished", event.error
    with Image.open(io.BytesIO(event.images[0])) as image:
        return np.asarray(image, dtype=np.float32)


def test_a_gpu_draws_in_a_half_precision_that_it_is_fast_in(engine: Engine) -> None:
    device = device_for(engine.catalogue["on-gpu"])
    major, _ = torch.cuda.get_device_capability()
    assert (device.kind, device.dtype) == ("cuda", "bfloat16" if major >= 8 else "float16")


def test_a_gpu_draws_the_picture_that_the_cpu_draws_to_within_its_precision(engine: Engine) -> None:
    difference = np.abs(picture(engine, "on-gpu") - picture(engine, "sketch"))
    assert difference.mean() < 8, "of 255: the same picture, in fewer bits"


def test_the_same_job_gives_the_same_pixels_on_a_gpu_too(engine: Engine) -> None:
    assert np.array_equal(picture(engine, "on-gpu"), picture(engine, "on-gpu"))


def test_stopping_on_a_gpu_keeps_the_last_preview(engine: Engine) -> None:
    drawing = engine.start(engine.resolve({"prompt": "a fox", "model": "on-gpu", "steps": 60}))
    for event in drawing.events():
        if event.step >= 2:
            drawing.stop()
    assert event.phase == "stopped"
    assert event.preview is not None


@pytest.mark.parametrize("plan", ["encoders-off", "offload"])
def test_a_plan_that_keeps_the_mathematics_draws_the_same_picture_on_a_gpu(engine: Engine, plan: str) -> None:
    assert np.array_equal(picture(engine, plan), picture(engine, "resident"))


@pytest.mark.parametrize("plan", ["quantized", "without-t5"])
def test_a_quantized_plan_draws_another_picture_that_is_one(engine: Engine, plan: str) -> None:
    drawn = picture(engine, plan)
    assert drawn.std() > 10
    assert not np.array_equal(drawn, picture(engine, "resident"))


def test_changing_plans_back_and_forth_leaves_gpu_memory_as_it_was(engine: Engine) -> None:
    for plan in ("resident", "encoders-off", "offload"):
        picture(engine, plan)
    before = torch.cuda.memory_allocated()
    for plan in ("resident", "encoders-off", "offload") * 3:
        picture(engine, plan)
    assert abs(torch.cuda.memory_allocated() - before) <= before / 100


def test_what_left_the_gpu_is_page_locked_in_host_memory(engine: Engine) -> None:
    picture(engine, "encoders-off")
    # Of each test the newest: what is free of the GPU, which is asked anew for each, is a part of the device.
    *_, memory = engine._local["cuda"]._memories.values()
    copies = [loaded.copy for loaded in memory.residency._loaded.values() if loaded.tier == "host"]
    assert copies
    assert all(tensor.is_pinned() for copy in copies for tensor in copy._copies)
