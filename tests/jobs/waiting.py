"""What the tests of who is next share: jobs that nobody draws, and a clock that a test sets."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from jobs.store.models import Owner
from pipeline.request import Job

LINE = "cuda"


@dataclass
class Clock:
    """Seconds since the epoch, as a test wants them."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


def job(model: str = "sketch", prompt: str = "a red apple") -> Job:
    return Job(
        id=str(uuid.uuid4()),
        model=model,
        prompt=prompt,
        negative_prompt="",
        width=64,
        height=64,
        steps=4,
        guidance=3.5,
        seed=1,
        images=1,
        warnings=("Said once.",),
    )


def owner(person: str = "A", session: str = "", first: bool = False) -> Owner:
    return Owner(f"address:{person}", session, first)
