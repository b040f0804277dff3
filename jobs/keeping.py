"""How much of what was drawn stays on disk: jobs' event files live within a bound of size and one of age,
and what was used longest ago goes first. A job is called here by its name in the files (log.name_of); what
the records say of it is the store's affair."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from jobs.log_names import job_of

log = logging.getLogger("stepwise")


@dataclass
class _Files:
    """Those of one job, of all its attempts. used: when one of them was last written or begun to be read,
    in seconds since the epoch. size: bytes."""

    paths: list[Path] = field(default_factory=list)
    used: float = 0.0
    size: int = 0


def size(folder: Path) -> int:
    """Bytes of all event files in this folder; 0 where there is no such folder."""
    return sum(files.size for files in _jobs(folder).values())


def keep(
    folder: Path, most_bytes: int, most_seconds: float, busy: Collection[str], old: Collection[str] = ()
) -> list[str]:
    """Deletes event files, those of one job together, until both bounds hold or only busy jobs are left.

    Args:
        most_bytes: of all files together. most_seconds: since a job's files were last used.
        busy: the jobs that stay whatever their size and age: queued, running, being read.
        old: those that go, however lately somebody looked at them.

    Returns:
        The jobs whose files are gone now, the one used longest ago first.
    """
    jobs = _jobs(folder)
    total, oldest = sum(files.size for files in jobs.values()), time.time() - most_seconds
    gone = []
    for job, files in sorted(jobs.items(), key=lambda one: one[1].used):
        if total <= most_bytes and files.used >= oldest and job not in old:
            continue
        if job not in busy and _delete(files):
            total -= files.size
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
