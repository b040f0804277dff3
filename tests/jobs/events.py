"""A job and its events, made by hand: what the tests write down where nothing need be drawn."""

from __future__ import annotations

import dataclasses
import uuid

from pipeline.events import Event
from pipeline.request import Job

JOB = Job(
    id=str(uuid.UUID(int=7)),
    model="sketch",
    prompt='ein Fuchs, 狐, "🦊"\nin two lines',
    negative_prompt="",
    width=128,
    height=64,
    steps=4,
    guidance=3.5,
    seed=2**53 - 2,
    images=2,
    warnings=("Drawn at 128 × 64.",),
)


def life(job: Job = JOB, picture: int = 40) -> list[Event]:
    """The events of a job of two images. picture: bytes of each picture."""
    begun = Event(job, "denoising", warnings=job.warnings, plan="resident")
    events = [Event(job, position=3, preload="Large"), begun]
    previews: tuple[bytes, ...] = ()
    images: tuple[bytes, ...] = ()
    for image in range(1, job.images + 1):
        for step in range(1, job.steps + 1):
            newest = b"JPEG %d %d " % (image, step) + bytes(picture)
            previews = (*previews[: image - 1], newest)
            event = dataclasses.replace(begun, image=image, step=step, eta=0.1 * step, seconds=step / 3)
            events.append(dataclasses.replace(event, previews=previews, images=images))
        images = (*images, b"PNG %d " % image + bytes(picture))
        events.append(dataclasses.replace(events[-1], phase="decoding", images=images))
    return [*events, dataclasses.replace(events[-1], phase="finished", eta=0.0)]
