"""How much of what was drawn stays: jobs' event files and records live within a bound of size, one of age and
one of their number, and what was used longest ago goes first. A job is called here by its name in the files
(log.name_of); what the records say of it is the store's affair."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.store.log_names import job_of

log = logging.getLogger("stepwise")

MOST_JOBS = 10_000
"""Jobs that ended and are kept, whatever their size: each look goes through all of them."""


@dataclass
class _Files:
    """Those of one job, of all its attempts. used: when it ended, or one of them was last written or begun to
    be read, in seconds since the epoch. size: bytes."""

    paths: list[Path] = field(default_factory=list)
    used: float = 0.0
    size: int = 0


def size(folder: Path) -> int:
    """Bytes of all event files in this folder; 0 where there is no such folder."""
    return sum(files.size for files in _jobs(folder).values())


def delete_old_files(
    folder: Path,
    most_bytes: int,
    most_seconds: float,
    busy: Collection[str],
    ended: Mapping[str, float] | None = None,
    records: int = 0,
    forget: Callable[[str], int] = lambda _: 0,
) -> list[str]:
    """Deletes event files, those of one job together, and has its record forgotten, until all bounds hold or
    only busy jobs are left.

    Args:
        most_bytes: of all files and records together. most_seconds: since a job was last used; one that ended
            longer ago goes, however lately somebody looked at it.
        busy: the jobs that stay whatever their size and age: queued, running, being read.
        ended: of those that have a record, when they ended, in seconds since the epoch.
        records: bytes that all of these take. forget: removes one, and gives the bytes that this frees.

    Returns:
        The jobs that are gone now, the one used longest ago first.
    """
    ended = ended or {}
    jobs = _jobs(folder)
    for job, at in ended.items():
        files = jobs.setdefault(job, _Files())
        files.used = max(files.used, at)
    total = records + sum(files.size for files in jobs.values())
    number, oldest = len(ended), time.time() - most_seconds
    gone = []
    for job, files in sorted(jobs.items(), key=lambda one: one[1].used):
        too_old = min(files.used, ended.get(job, files.used)) < oldest
        too_many = number > MOST_JOBS and job in ended
        if (total > most_bytes or too_many or too_old) and job not in busy and _delete(files):
            total -= files.size
            if job in ended:
                total -= forget(job)
                number -= 1
            gone.append(job)
    return gone


def _jobs(folder: Path) -> dict[str, _Files]:
    """Whose files there are. Files of other names are somebody else's."""
    jobs: dict[str, _Files] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        job = job_of(path)
        if job is None or path.is_symlink():
            continue
        try:
            status = path.stat()
        except FileNotFoundError:  # deleted meanwhile
            continue
        files = jobs.setdefault(job, _Files())
        files.paths.append(path)
        files.used = max(files.used, status.st_mtime)
        files.size += status.st_size
    return jobs


def _delete(files: _Files) -> bool:
    """Whether they are gone."""
    try:
        for path in files.paths:
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s can't be deleted (%s), so more is kept than wanted.", path, error.strerror)
        return False
    return True
