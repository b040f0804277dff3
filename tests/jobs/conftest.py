"""What the tests of jobs share: queues of one folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.data_dir.folder import DataFolder
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.workers.executors import executors
from pipeline.engine import Engine
from pipeline.executors.executor import Executor
from tests.jobs.queueing import Make


@pytest.fixture
def make(tiny: Engine, tmp_path: Path) -> Iterator[Make]:
    """Makes queues of one folder, one after the other, with these rules."""
    made: list[Queue] = []

    def begin(executor: Executor | None = None, **rules: Any) -> Queue:
        if made:
            made[-1].close()
        for local in tiny._local.values():
            local._lost = ""  # the next server is another process
        several: dict[str, Sequence[Executor]] = {"cpu": [executor]} if executor else {**executors(tiny)}
        made.append(Queue(tiny, DataFolder(tmp_path / "data"), several, Limits(**rules)))
        return made[-1]

    yield begin
    if made:
        made[-1].close()
