"""Jobs that have ended: how long their events and records stay."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from pathlib import Path

from jobs.store.log_names import name_of
from jobs.store.models import Store
from jobs.store.retention import delete_old_files
from pipeline.errors import StepwiseError

log = logging.getLogger("stepwise")


class EndedJobs:
    """The jobs of one store that have ended."""

    def __init__(self, store: Store, logs: Path) -> None:
        """logs: the folder of the jobs' events."""
        self._store, self.logs = store, logs

    def delete_old(self, most_bytes: int, most_seconds: float, active: Collection[str]) -> float:
        """Deletes what is past these bounds (`Rules`), or too many, of jobs that ended: files and records
        together. On a full disk the files go, and the records when there is room again.

        Args:
            active: ids of the jobs that wait or run.

        Returns:
            Seconds until the next of them passes its age; infinite where there is none.

        Raises:
            StoreError, DiskFull: the records can't be read.
        """
        self._tidy()  # so that the size is that of what is in it
        ended = {_file_name(job): (job, at) for job, at in self._store.ended()}

        def forget(name: str) -> int:
            try:
                return self._store.forget([ended[name][0]])
            except StepwiseError as error:
                log.error("That a job is forgotten can't be written down: %s", error)
                return 0

        ends = {name: at for name, (_, at) in ended.items()}
        busy = [name_of(job) for job in active]
        gone = delete_old_files(self.logs, most_bytes, most_seconds, busy, ends, self._store.size(), forget)
        if gone:
            self._tidy()
        oldest, left = time.time() - most_seconds, ends.keys() - set(gone)
        return min((ends[name] - oldest for name in left), default=math.inf)

    def _tidy(self) -> None:
        try:
            self._store.tidy()
        except StepwiseError as error:
            log.error("What is forgotten can't be written down: %s", error)


def _file_name(job: str) -> str:
    """As `name_of`; an id that a bad disk has changed stands for itself, for no file is called by it."""
    try:
        return name_of(job)
    except ValueError:
        return job
