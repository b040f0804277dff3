"""Drawings that are made up, and an estimator that is shown them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.eta.estimator import Estimator
from pipeline.catalog.catalogue import read_catalogue
from pipeline.events import Event
from pipeline.request import Job
from tests.support.tiny import ROOT

CATALOGUE = read_catalogue(ROOT / "models.yaml")
MEGAPIXEL = 2**20


def job(**values: Any) -> Job:
    defaults = {"model": "sd3.5-large", "prompt": "", "negative_prompt": "", "seed": 0, "images": 1}
    size = {"width": 1024, "height": 1024, "steps": 28, "guidance": 3.5}
    return Job(**{"id": "1", **defaults, **size, **values})


def estimator(path: Path | None = None, device: str = "a GPU") -> Estimator:
    return Estimator(CATALOGUE, lambda _: f"cuda: {device}", path)


def drawing(
    job: Job, step: float = 0.1, decode: float = 0.5, read: float = 0.2, loading: float = 0.0
) -> list[Event]:
    """The events of a drawing whose parts take so many seconds."""
    seconds, event = 0.0, Event(job)
    events = [event]

    def post(after: float, **changes: Any) -> None:
        nonlocal seconds, event
        seconds += after
        event = Event(**{**vars(event), **changes, "seconds": seconds})
        events.append(event)

    if loading:
        post(0, phase="loading", done=0, total=2)
        post(loading, phase="loading", done=2, total=2)
    post(0, phase="encoding")
    for image in range(1, job.images + 1):
        post(read if image == 1 else 0.0, phase="denoising", step=0, image=image)
        for done in range(1, job.steps + 1):
            left = (job.steps * (job.images - image + 1) - done) * step
            post(step, step=done, eta=left)
        post(0, phase="decoding")
        post(decode, images=(*event.images, b"PNG %d" % image))
    post(0, phase="finished", eta=0.0)
    return events


def shown(estimator: Estimator, events: list[Event], loaded: bool = True) -> None:
    observer = estimator.observe(events[0].job, loaded)
    for event in events:
        observer.see(event)
