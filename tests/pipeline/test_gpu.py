"""The same engine on a CUDA GPU: the embedded model, let off its leash to the CPU."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.catalogue import Catalogue, read_catalogue
from pipeline.engine import Engine
from pipeline.hardware import device_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; this machine has none"),
]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def engine() -> Engine:
    sketch = read_catalogue(ROOT / "models.yaml")["sketch"]
    return Engine(Catalogue([sketch, sketch.model_copy(update={"id": "on-gpu", "device": None})]))


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
