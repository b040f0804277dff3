"""What the tests of the inputs share: who sends what, and what is there of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.store.inputs import store as module
from jobs.store.inputs.store import Inputs
from jobs.store.models import Owner
from pipeline.errors import InputNotFound

ANN, BEN = Owner("user:ann"), Owner("user:ben")
HOUR, BLOCK = 3600.0, 2**16
MOST = 10**8


class Slowly(io.RawIOBase):
    """A stream of so many bytes that counts what was read of it, and calls back before each read."""

    def __init__(self, size: int, before: Callable[[], object] = lambda: None) -> None:
        self.size, self.taken, self._before = size, 0, before

    def read(self, size: int = -1, /) -> bytes:
        self._before()
        chunk = bytes(min(size, self.size - self.taken))
        self.taken += len(chunk)
        return chunk


def put(inputs: Inputs, content: bytes, whose: Owner = ANN) -> str:
    return inputs.put(io.BytesIO(content), MOST, whose)


def content(inputs: Inputs, digest: str, whose: Owner = ANN) -> bytes | None:
    """None: it isn't there for this owner."""
    try:
        with inputs.open(digest, whose) as file:
            return file.read()
    except InputNotFound:
        return None


def digests(folder: Path) -> set[str]:
    """The contents that a folder has."""
    return {path.name for path in folder.iterdir() if len(path.name) == 64}


def bounds(monkeypatch: pytest.MonkeyPatch, most: int, each: int) -> None:
    """In blocks, which is what an input counts at least."""
    monkeypatch.setattr(module, "MOST_BYTES", most * BLOCK)
    monkeypatch.setattr(module, "MOST_BYTES_EACH", each * BLOCK)
