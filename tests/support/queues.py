"""A queue in front of an engine of this process, for tests that hold a step and look."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.data_dir.folder import DataFolder
from jobs.lifecycle.subscription import Subscription
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.store.models import Lifetime, Owner
from jobs.workers.executors import executors
from pipeline.engine import Engine

SOMEBODY = Owner("address:192.0.2.1", "session")


@contextlib.contextmanager
def queued(engine: Engine, folder: Path, **rules: Any) -> Iterator[Queue]:
    """rules: as of Limits."""
    queue = Queue(engine, DataFolder(folder / "data"), executors(engine), Limits(**rules))
    try:
        yield queue
    finally:
        queue.close()


def begin(
    queue: Queue, values: dict[str, Any], owner: Owner = SOMEBODY, lifetime: Lifetime = "detached"
) -> Subscription:
    """Starts the job that these parameters mean."""
    return queue.start(queue.engine.check(values), owner, lifetime)
