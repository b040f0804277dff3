"""JSON bodies, read so that they can mean one thing only, and bounded in all their parts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from pipeline.errors import quoted

MOST_VALUES = 10_000
"""In one body, all lists and objects counted: a call has ten."""
MOST_DEPTH = 500
"""Of lists and objects in one another; Gradio goes through them by recursion: Python allows 1,000 calls."""
_NO_TEXT = re.compile("[\ud800-\udfff]")


class UnusableBody(Exception):
    """A body that no route can use. status: HTTP's; the words say why."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that this body is.

    Raises:
        UnusableBody: it is none, or one that can be read in two ways.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise UnusableBody(400, "The body's lists and objects are too deep in one another.") from None
    except ValueError as error:  # also: no UTF-8, a number of 5,000 digits
        raise UnusableBody(400, f"The body is not JSON that can be read: {_reason(error)}.") from None
    if not isinstance(value, dict):
        raise UnusableBody(422, "The body must be a JSON object: {…}.")
    _check_bounds(value)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's pairs as a dict, and refuse a key that stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UnusableBody(400, f"{quoted(twice)} stands twice in one object of the body: leave one out.")
    return found


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return "it isn't UTF-8" if isinstance(error, UnicodeDecodeError) else "a number in it is too long"


def _check_bounds(value: Any) -> None:
    """Refuse what has too many values, or too many within each other."""
    count, level = 0, [value]
    for _ in range(MOST_DEPTH + 1):
        level = [inner for outer in level for inner in _parts_of(outer)]
        count += len(level)
        if count > MOST_VALUES:
            raise UnusableBody(400, f"The body has more than {MOST_VALUES:,} values, the most that are read.")
        if not level:
            return
    raise UnusableBody(400, f"The body's lists and objects are more than {MOST_DEPTH} deep in one another.")


def _parts_of(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def all_values(value: Any) -> Iterable[Any]:
    """Yield this value and everything in it."""
    rest = [value]
    while rest:
        one = rest.pop()
        yield one
        rest.extend(_parts_of(one))


def check_text(value: Any) -> None:
    """Refuse what neither JSON nor UTF-8 can write in an answer: in values that no endpoint looks at.

    Raises:
        UnusableBody: NaN or half a character stands in it.
    """
    for one in all_values(value):
        texts = [one] if isinstance(one, str) else one if isinstance(one, dict) else ()
        if any(_NO_TEXT.search(text) for text in texts):
            raise UnusableBody(400, "A text in the body is not text: it has half of a surrogate pair.")
        if isinstance(one, float) and not math.isfinite(one):
            raise UnusableBody(400, "A number in the body is not finite: JSON has neither NaN nor Infinity.")
