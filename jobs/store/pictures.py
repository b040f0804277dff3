"""A drawing's pictures by name. They are kept once, in the events of their job's attempts (event_log.py):
there they are counted, and from there they go.
"""

from __future__ import annotations

import hashlib
from itertools import chain
from pathlib import Path
from zlib import crc32

from jobs.store.event_log import LogReader


def picture_name(picture: bytes) -> str:
    """The same for the same bytes, and not to be guessed: the CRC-32, by which an event knows it, and 96 bits
    of the SHA-256, in 32 hexadecimal digits."""
    return f"{crc32(picture):08x}{hashlib.sha256(picture).hexdigest()[:24]}"


def find_picture(folder: Path, job: str, picture: str) -> bytes | None:
    """A picture that some attempt at a job has shown; None: it isn't there, or not any more.

    Args:
        folder: of the events. job: the job's name (log.name_of). picture: its `picture_name`.

    Raises:
        OSError: it is there and can't be read.
    """
    first = folder / f"{job}.1.events"  # nearly always the only one
    for path in chain([first], (path for path in folder.glob(f"{job}.*.events") if path != first)):
        with LogReader(path) as reader:
            found = reader.find(int(picture[:8], 16), lambda read: picture_name(read) == picture)
        if found is not None:
            return found
    return None
