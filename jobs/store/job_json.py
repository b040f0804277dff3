"""A job as it is written down: its parameters as JSON, with the version of their meaning, and back from what
any version of Stepwise wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.errors import quoted
from pipeline.request import Job

Migration = Callable[[dict[str, Any]], dict[str, Any]]
MIGRATIONS: tuple[Migration, ...] = (
    dict,  # what was written before there were versions is as version 1
)
"""The one at n makes version n + 1 of version n. One is needed where a parameter's name or meaning changes,
not where a parameter is new: what was written before has its default."""
JOB_VERSION = len(MIGRATIONS)
"""Of the jobs that this Stepwise writes down."""


class UnknownVersion(ValueError):
    """Which version of a job this Stepwise can't read, in words."""


def to_json(job: Job) -> dict[str, Any]:
    """What `migrated` and `Job.model_validate` make the same job of."""
    return {"version": JOB_VERSION, **job.model_dump(mode="json")}


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """What was written down of a job, as this version would have written it; without its version.

    Raises:
        UnknownVersion: a newer Stepwise wrote it, or what is there isn't of the version that it says.
    """
    fields = dict(values)
    version = fields.pop("version", 0)
    if type(version) is not int or not 0 <= version <= JOB_VERSION:
        raise UnknownVersion(f"version {quoted(version)} (the newest that it knows is {JOB_VERSION})")
    try:
        for migration in MIGRATIONS[version:]:
            fields = migration(fields)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # it isn't as that version writes
        raise UnknownVersion(f"version {version}") from error
    return fields
