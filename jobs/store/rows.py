"""A row of the store as a record, whoever wrote it: another version, or a disk that failed. Every row can be
read; what of it can't takes a value that harms nobody, and words say so.
"""

from __future__ import annotations

import json
import math
import uuid
from typing import Any, get_args

from pydantic import ValidationError

from jobs.states import State
from jobs.store.job_json import UnknownVersion, migrated
from jobs.store.models import Ended, Lifetime, Owner, Record
from pipeline.errors import quoted
from pipeline.parameters import Kind, parameters
from pipeline.request import Job

COLUMNS = (
    "place, id, line, person, session, first, lifetime, state, created, "
    "attempt, kills, lost, stop, overtaken, since, started, ended, error, code, job"
)
_MOST = 2**31
"""What no count of ours comes near; a larger one could not be counted on in SQLite's 64 bits."""
_OF_KIND: dict[Kind, Any] = {"text": "", "whole": 1, "number": 0.0, "seed": 0}
_UNKNOWN: dict[str, Any] = {one.name: _OF_KIND[one.kind] for one in parameters(but={"job"})} | {
    "model": "unknown",
    "warnings": (),
}
"""What stands for a job's fields that can't be read."""


def record_of(row: tuple) -> Record:
    """The record of a row (COLUMNS), whatever is in it; `fault` says whether that is all of it."""
    place, id_, line, person, session, first, lifetime, state, created, *numbers = row[:-1]
    attempt, kills, lost, stop, overtaken, since, started, ended, error, code = numbers
    job, _ = _job(row[-1], _text(id_))
    return Record(
        job=job,
        line=_text(line),
        owner=Owner(_text(person), _text(session), bool(first)),
        # A job of a lifetime that isn't known is ended by nobody.
        lifetime=lifetime if lifetime in get_args(Lifetime) else "detached",
        state=state if state in get_args(State) else "failed",  # `fault` has its words
        place=place,
        created=_seconds(created) or 0.0,
        attempt=_count(attempt) if _is_id(id_) else 0,  # no file is looked for by a name that isn't an id
        kills=_count(kills),
        lost=_count(lost),
        stop=bool(stop),
        overtaken=_count(overtaken),
        since=_seconds(since),
        started=_seconds(started),
        ended=_seconds(ended),
        error=None if error is None else _text(error),
        code=None if code is None else _text(code),
    )


def ended_of(row: tuple) -> Ended:
    """The job whose id and end these are, whatever is in them."""
    id_, ended = row
    return Ended(_text(id_), _seconds(ended) or 0.0)


def fault(row: tuple) -> str:
    """Which part of a row can't be read, so that its job can't be drawn as it was asked for; empty: none."""
    _, id_, line, person, session, _, lifetime, state, _, attempt, kills, lost, *_, text = row
    if state not in get_args(State):
        return f"state {quoted(_text(state))}"
    if lifetime not in get_args(Lifetime):
        return f"lifetime {quoted(_text(lifetime))}"
    if not _is_id(id_):
        return f"id {quoted(_text(id_))}"
    for name, value in (("line", line), ("person", person), ("session", session)):
        if not isinstance(value, str):
            return f"{name} {quoted(_text(value))}"
    for name, value in (("attempt", attempt), ("kills", kills), ("lost", lost)):
        if _count(value) != value:
            return f"{name} {quoted(value)}"
    return _job(text, id_)[1]


def _job(text: object, id_: str) -> tuple[Job, str]:
    """The job, and which of its fields can't be read or mean something that this version doesn't know."""
    try:
        found = json.loads(_text(text))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return Job(id=id_, **_UNKNOWN), "its settings"
    wrong: list[str] = []
    try:
        found = migrated(found)
    except UnknownVersion as error:
        wrong.append(str(error))
        found = {name: value for name, value in found.items() if name != "version"}
    known = {name: value for name, value in found.items() if name in Job.model_fields} | {"id": id_}
    # What another version knows besides and leaves empty changes nothing; the rest would be left out unsaid.
    wrong += sorted(name for name, value in found.items() if value and name not in Job.model_fields)
    try:
        job = Job.model_validate(known)
    except ValidationError as error:
        names = {str(one["loc"][0]) for one in error.errors()}
        wrong += sorted(names)
        job = Job.model_validate(_UNKNOWN | known | {name: _UNKNOWN[name] for name in names})
    return job, ", ".join(wrong)


def _is_id(value: object) -> bool:
    """Whether it is a UUID as jobs have it, so that files may be named by it."""
    try:
        return str(uuid.UUID(str(value))) == value
    except ValueError:
        return False


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < _MOST else 0


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
