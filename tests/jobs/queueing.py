"""What the tests of the queue share: who asks, for what, and how its figures are read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jobs.lifecycle.subscription import Subscription
from jobs.queue import Queue
from jobs.store.models import Owner
from pipeline.engine import Engine
from pipeline.request import Job
from tests.support.rest import read_figures

ANN, BEN = Owner("user:ann"), Owner("user:ben")
SOON = 600.0
"""Seconds that something may take that comes at once on an idle machine."""
Make = Callable[..., Queue]


def job(engine: Engine, **values: Any) -> Job:
    return engine.check({"prompt": "a secret fox", "model": "tiny", "steps": 4, "seed": 7} | values)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def stopping(subscription: Subscription) -> bool:
    """Whether the job was asked to stop, or has ended."""
    tracked = subscription.tracked
    return subscription.latest.last or (tracked is not None and tracked.stop_asked)


def counts(queue: Queue) -> dict[tuple[str, ...], float]:
    """What Prometheus would read: by name and the labels' values."""
    return read_figures(queue.metrics.text().decode())
