"""Pictures and weights that requests bring along, kept by their SHA-256 so that jobs stay plain data: whose
they are, how much there may be, and when they go. How they lie on the disk stands in files.py.

Two owners of the same bytes each own them, and neither can tell: every owner is counted the whole size, every
upload is written and hashed, and what is another's is answered as what isn't there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from jobs.store.inputs.files import InputFiles, Key, is_digest, key_of
from jobs.store.models import Owner
from pipeline.errors import Busy, InputNotFound, InputTooLarge, quoted

log = logging.getLogger("stepwise")

MOST_BYTES = 4 * 10**9
"""Of all inputs, counted once for each of their owners."""
MOST_BYTES_EACH = 10**9
"""Of one person's inputs, in all sessions."""
LEAST_BYTES = 2**16
"""What an input counts at least, so that their number is bounded, too."""
KEEP_SECONDS = 24 * 3600.0
"""After its last use an input is deleted; what a waiting or running job names is in use."""
RESERVED_SECONDS = 600.0
"""After its last use an input isn't deleted to make room for others: its owner is about to start a job with
it."""
CHUNK_BYTES = 2**20
"""What is read of an upload at once."""


class Source(Protocol):
    """What an input is read from: an open file, or what reads as one."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes, empty at the end."""


@dataclass
class _Ownership:
    """Bytes as they are counted, and when its owner last used it (seconds since the epoch)."""

    size: int
    used: float


class Inputs:
    """The inputs in one folder, which no other process writes to. Safe to use from any thread. Every call
    reads or writes the disk: not for an event loop."""

    def __init__(
        self,
        folder: Path,
        in_use: Callable[[], Collection[tuple[str, Owner]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read what is in the folder, and delete what a killed process left unfinished.

        Args:
            folder: must exist, closed to other accounts (`DataFolder.inputs`).
            in_use: gives digest and owner of every input that a waiting or running job names: these are never
                deleted. It may be a moment behind, for whoever starts a job opens its inputs first, which
                keeps them for RESERVED_SECONDS.
            clock: seconds since the epoch.

        Raises:
            DiskFull, StoreError: the folder can't be used.
        """
        self._files, self._in_use, self._clock = InputFiles(folder), in_use, clock
        self._lock = threading.Lock()
        self._owners: dict[str, dict[Key, _Ownership]] = {}
        self._bytes: Counter[str] = Counter()  # by person, unfinished uploads included
        now = clock()
        for digest, key, size, used in self._files.recover():
            size = max(LEAST_BYTES, size)
            self._owners.setdefault(digest, {})[key] = _Ownership(size, min(used, now))  # a clock set back
            self._count(key.person, size)

    def put(self, source: Source, most: int, owner: Owner) -> str:
        """Read an input to its end and keep it for this owner.

        Args:
            most: bytes that it may have. What has more is refused when that shows, without reading the rest.

        Returns:
            Its SHA-256, as 64 lowercase hexadecimal digits.

        Raises:
            InputTooLarge. Busy: there is no room, and nothing that may be deleted to make some.
            DiskFull, StoreError. Whatever `source` raises. Nothing is kept then.
        """
        key, most, files = key_of(owner), min(most, MOST_BYTES_EACH), self._files
        upload = _Ownership(0, 0.0)
        path: Path | None = None
        try:
            self._grow(upload, key.person, LEAST_BYTES)
            file, path = files.begin()
            hashed, size = hashlib.sha256(), 0
            with file:
                while chunk := source.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > most:
                        raise InputTooLarge(
                            f"This is larger than {most:,} bytes, the most that a file may have here. Send a "
                            "smaller one."
                        )
                    self._grow(upload, key.person, max(0, size - upload.size))
                    hashed.update(chunk)
                    files.write(file, chunk)
                files.finish(file)
            digest = hashed.hexdigest()
            self._keep(path, digest, key, upload)
        except BaseException:
            with self._lock:
                self._count(key.person, -upload.size)
            if path is not None:
                with contextlib.suppress(OSError):  # the next start deletes it
                    files.delete(path)
            raise
        return digest

    def open(self, digest: str, owner: Owner) -> BinaryIO:
        """Open an input of this owner's to be read, once its content was found undamaged. That is a use of
        it. The file can be read to its end also where the input is deleted meanwhile.

        Args:
            digest: as a client wrote it.

        Raises:
            InputNotFound: it isn't there, or not this owner's, or damaged.
            StoreError: it can't be read.
        """
        if not is_digest(digest):
            raise InputNotFound(
                f"{quoted(digest)} names no file: the name of a file that was sent is its SHA-256, 64 digits "
                "of 0-9 and a-f."
            )
        key = key_of(owner)
        with self._lock:
            ownership = self._owners.get(digest, {}).get(key)
            if ownership is None:
                raise _not_here(digest)
            self._use(digest, key, ownership)
        try:
            file = self._files.open(digest)
        except FileNotFoundError:
            raise _not_here(digest) from None
        try:
            if self._files.is_damaged(file, digest):
                log.error("The input %s is damaged: the disk has changed it.", digest)
                raise InputNotFound(
                    f"The file {digest[:8]}… was damaged on the server's disk. Send it again."
                )
        except BaseException:
            file.close()
            raise
        return file

    def expire(self) -> float:
        """Delete what nobody has used for KEEP_SECONDS. What is named by a job counts as used now.

        Returns:
            Seconds until the next input passes its age; infinite where there is none.
        """
        in_use, now = self._named(), self._clock()
        with self._lock:
            for digest, key, ownership in self._all():
                if (digest, key) in in_use:
                    self._use(digest, key, ownership)
                elif now - ownership.used > KEEP_SECONDS:
                    self._delete(digest, key)
            used = min((ownership.used for _, _, ownership in self._all()), default=math.inf)
        return max(0.0, used + KEEP_SECONDS - now)

    def _named(self) -> set[tuple[str, Key]]:
        """What jobs name. Asked for without the lock: whoever answers may have locks of their own."""
        return {(digest, key_of(owner)) for digest, owner in self._in_use()}

    def _grow(self, upload: _Ownership, person: str, amount: int) -> None:
        """Reserve so many bytes more for an upload. Raises Busy where there is no room for them."""
        with self._lock:
            fits = self._missing(person, amount) <= 0 and self._missing(None, amount) <= 0
            if fits:
                self._count(person, amount)
                upload.size += amount
        if not fits:
            in_use = self._named()
            with self._lock:
                self._make_room(person, amount, in_use)
                self._make_room(None, amount, in_use)
                self._count(person, amount)
                upload.size += amount

    def _keep(self, path: Path, digest: str, key: Key, upload: _Ownership) -> None:
        """Give an uploaded file its name, and its owner."""
        with self._lock:
            owners = self._owners.setdefault(digest, {})
            upload.used = self._clock()
            try:
                self._files.keep(path, digest, key, upload.used)
            except BaseException:
                if not owners:
                    del self._owners[digest]
                    with contextlib.suppress(OSError):
                        self._files.delete(self._files.content(digest))
                raise
            if key in owners:
                self._count(key.person, -owners[key].size)
            owners[key] = upload

    # Called with the lock held.

    def _all(self) -> list[tuple[str, Key, _Ownership]]:
        return [(digest, *one) for digest, owners in self._owners.items() for one in owners.items()]

    def _count(self, person: str, amount: int) -> None:
        self._bytes[person] += amount
        if not self._bytes[person]:
            del self._bytes[person]  # however many have been here, it stays small

    def _missing(self, person: str | None, amount: int) -> int:
        """Bytes that are too many with so many more; of one person's, or of all where that is None."""
        if person is None:
            return self._bytes.total() + amount - MOST_BYTES
        return self._bytes[person] + amount - MOST_BYTES_EACH

    def _make_room(self, person: str | None, amount: int, in_use: Collection[tuple[str, Key]]) -> None:
        """Delete what was used longest ago, of one person's or of all, until so many bytes fit. Nothing is
        deleted where that doesn't suffice.

        Raises:
            Busy.
        """
        missing, now = self._missing(person, amount), self._clock()
        free = [one for one in self._all() if person in (None, one[1].person) and one[:2] not in in_use]
        free.sort(key=lambda one: one[2].used)
        idle = [one for one in free if now - one[2].used > RESERVED_SECONDS]
        if missing <= sum(ownership.size for _, _, ownership in idle):
            for digest, key, ownership in idle:
                if missing > 0 and self._delete(digest, key):
                    missing -= ownership.size
        if missing > 0:
            whose = "The files that were sent here" if person is None else "The files that you sent"
            most = MOST_BYTES if person is None else MOST_BYTES_EACH
            later = [ownership.used + RESERVED_SECONDS - now for _, _, ownership in free]
            raise Busy(
                f"{whose} take all of the {most:,} bytes there are for them.",
                max(1.0, min(later)) if later else None,
            )

    def _use(self, digest: str, key: Key, ownership: _Ownership) -> None:
        ownership.used = self._clock()
        self._files.use(digest, key, ownership.used)

    def _delete(self, digest: str, key: Key) -> bool:
        """Whether this owner has it no longer. The content goes with its last owner, and first: the next
        start deletes an owner's file without one."""
        path = self._files.content(digest)
        try:
            if len(self._owners[digest]) == 1:
                self._files.delete(path)
            path = self._files.ownership(digest, key)
            self._files.delete(path)
        except OSError as error:
            log.warning("%s can't be deleted (%s), so more is kept than wanted.", path, error.strerror)
            return False
        self._count(key.person, -self._owners[digest].pop(key).size)
        if not self._owners[digest]:
            del self._owners[digest]
        return True


def _not_here(digest: str) -> InputNotFound:
    return InputNotFound(
        f"The file {digest[:8]}… isn't here, or not any more: files that are sent are deleted after a while. "
        "Send it again."
    )
