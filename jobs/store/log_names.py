"""How the files of jobs' events are called: by a hash of the job's id, and the attempt's number."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAME = re.compile(r"([0-9a-f]{32})\.([0-9]+)\.events")
_OLD_NAME = re.compile(rf"({_ID})\.([0-9]+)\.events")
"""As an older version called them: by the job's id."""


def name_of(job: str) -> str:
    """What stands for a job in its files' names and its pictures' addresses: a hash of its id. The id itself
    is the key to the job, and names are seen by more people than may have it.

    Raises:
        ValueError: the id isn't one that a Job has (a UUID in small letters).
    """
    if not re.fullmatch(_ID, job):
        raise ValueError(f"no job has the id {job!r}")
    return hashlib.sha256(job.encode()).hexdigest()[:32]


def log_path(folder: Path, job: str, attempt: int) -> Path:
    """The file of an attempt.

    Raises:
        ValueError: as of `name_of`.
    """
    return folder / f"{name_of(job)}.{attempt}.events"


def job_of(path: Path) -> str | None:
    """The name (`name_of`) of the job whose events a file holds; None: it holds none."""
    match = _NAME.fullmatch(path.name)
    return match[1] if match else None


def rename_old(folder: Path) -> None:
    """Gives the files of an older version, which have their job's id in their names, the names of this one.

    Raises:
        OSError: the folder can't be changed.
    """
    for path in list(folder.iterdir()):
        if match := _OLD_NAME.fullmatch(path.name):
            path.replace(log_path(folder, match[1], int(match[2])))
