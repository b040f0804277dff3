"""Which of the Hub's files are known to be what the Hub has. A large file is hashed once, by whichever
process is first, and again once it has changed: eight workers that fetch a model together would each hash
all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import constants

from pipeline.errors import Stopped

POLL = 0.1
"""Seconds between two tries to be the one that hashes a file: how late a stop may be."""
_SHA256 = re.compile("[0-9a-f]{64}")
_PIECE = 1 << 20


def is_sound(path: Path, abandoned: threading.Event, anew: bool = False) -> bool:
    """Whether a file of the cache has the SHA-256 by which the Hub knows it; files that it knows otherwise,
    small ones, count as sound.

    Args:
        anew: hashes it also where that was done before, for a disk may fail without telling.

    Raises:
        Stopped: `abandoned` was set meanwhile. OSError: it can't be read.
    """
    real = path.resolve()
    expected = real.name  # the cache names a large file's content so
    if not _SHA256.fullmatch(expected):
        return True
    # Among huggingface_hub's locks, which it leaves out where it counts what is in its cache.
    note = Path(constants.HF_HUB_CACHE) / ".locks" / "stepwise" / f"{expected}.json"
    with _alone(note, abandoned):
        try:
            version = _version(real)
        except FileNotFoundError:  # another has found it damaged meanwhile
            return False
        if not anew and _noted(note) == version:
            return True
        sound = _sha256(real, abandoned) == expected
        # A cache that can't be written to is hashed each time.
        with contextlib.suppress(OSError):
            if sound and _version(real) == version:
                _write(note, version)
            else:
                note.unlink(missing_ok=True)
        return sound


@contextlib.contextmanager
def _alone(note: Path, abandoned: threading.Event) -> Iterator[None]:
    """No other process or thread is in here with the same note, where the cache can be written to."""
    lock = FileLock(note.with_suffix(".lock"))
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            if abandoned.is_set():
                raise Stopped
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=POLL)
    except (OSError, NotImplementedError):  # read-only, or a file system without locks
        pass
    try:
        yield
    finally:
        lock.release()


def _version(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _noted(note: Path) -> object:
    """Of which version of the file the note is; None: there is none, or a damaged one."""
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _write(note: Path, version: list[int]) -> None:
    handle, name = tempfile.mkstemp(dir=note.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(version, file)
    Path(name).replace(note)


def _sha256(path: Path, abandoned: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            if abandoned.is_set():
                raise Stopped
            digest.update(piece)
    return digest.hexdigest()
