"""How inputs (store.py) lie in their folder: a file for each content, called by its SHA-256, and an empty
one for each owner of it, called `DIGEST.PERSON.SESSION` (hashes of the owner's names), whose time is that
of the owner's last use.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from jobs.data_dir.private_files import make_file, open_file
from jobs.store.models import Owner
from pipeline.errors import DiskFull, StoreError

_UPLOAD = "upload-"
"""What the names of unfinished files begin with."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_OWNERSHIP = re.compile(r"(?P<digest>[0-9a-f]{64})\.(?P<person>[0-9a-f]{32})\.(?P<session>[0-9a-f]{32})")


class Key(NamedTuple):
    """An owner as the files are called. Without a login a person is an address, which may be many people's:
    so the session counts, too."""

    person: str
    session: str


class Found(NamedTuple):
    """An owner's input: its bytes, and when that owner last used it, in seconds since the epoch."""

    digest: str
    key: Key
    size: int
    used: float


def key_of(owner: Owner) -> Key:
    """Return what an owner is called here: a logged-in user is one in all sessions."""
    session = "" if owner.person.startswith("user:") else owner.session
    return Key(_hashed(owner.person), _hashed(session))


def is_digest(name: object) -> bool:
    """Whether a client's name for an input can be one: 64 lowercase hexadecimal digits, so never a path."""
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None


class InputFiles:
    """The files in one folder. Each call raises DiskFull or StoreError where the disk doesn't do it, `delete`
    the system's own OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def content(self, digest: str) -> Path:
        """Return the path of a content."""
        return self._folder / digest

    def ownership(self, digest: str, key: Key) -> Path:
        """Return the path of the file that says who owns a content."""
        return self._folder / f"{digest}.{key.person}.{key.session}"

    def begin(self) -> tuple[BinaryIO, Path]:
        """Open a new, unfinished file, closed to other accounts; the next `recover` deletes it."""
        with _explained():
            handle, name = tempfile.mkstemp(prefix=_UPLOAD, dir=self._folder)
            return os.fdopen(handle, "wb", buffering=0), Path(name)

    def write(self, file: BinaryIO, chunk: bytes) -> None:
        """Add a chunk to an unfinished file."""
        with _explained():
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]

    def finish(self, file: BinaryIO) -> None:
        """Bring an unfinished file to the disk itself."""
        with _explained():
            os.fsync(file.fileno())

    def keep(self, path: Path, digest: str, key: Key, used: float) -> None:
        """Give a finished file its name, also over the same content, which may be damaged; and its owner."""
        with _explained():
            path.replace(self.content(digest))
            make_file(self.ownership(digest, key))
            self._date(digest, key, used)

    def use(self, digest: str, key: Key, used: float) -> None:
        """Note an owner's use, as far as the disk takes it."""
        with contextlib.suppress(OSError):
            self._date(digest, key, used)

    def open(self, digest: str) -> FileIO:
        """Open a content.

        Raises:
            FileNotFoundError: there is none.
        """
        with _explained(but=FileNotFoundError):
            return open_file(self.content(digest))

    def is_damaged(self, file: FileIO, digest: str) -> bool:
        """Whether an open file has another content than its name says; it stands at its beginning then."""
        with _explained():
            found = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
        return found != digest

    def delete(self, path: Path) -> None:
        """Delete a file, if it is there."""
        path.unlink(missing_ok=True)

    def recover(self) -> list[Found]:
        """Read what is in the folder, and delete what has no content or no owner, as a killed process leaves
        it. Files of other names are somebody else's."""
        with _explained():
            sizes: dict[str, int] = {}
            owned: list[tuple[str, Key, float]] = []
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if not entry.is_file(follow_symlinks=False):
                        continue
                    if entry.name.startswith(_UPLOAD):
                        self.delete(Path(entry.path))
                    elif is_digest(entry.name):
                        sizes[entry.name] = entry.stat().st_size
                    elif name := _OWNERSHIP.fullmatch(entry.name):
                        key = Key(name["person"], name["session"])
                        owned.append((name["digest"], key, entry.stat().st_mtime))
            for digest, key, _ in owned:
                if digest not in sizes:
                    self.delete(self.ownership(digest, key))
            for digest in sizes.keys() - {digest for digest, *_ in owned}:
                self.delete(self.content(digest))
            return [Found(digest, key, sizes[digest], used) for digest, key, used in owned if digest in sizes]

    def _date(self, digest: str, key: Key, used: float) -> None:
        os.utime(self.ownership(digest, key), (used, used))


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@contextlib.contextmanager
def _explained(but: type[OSError] | tuple[type[OSError], ...] = ()) -> Iterator[None]:
    """Turn the disk's errors into ours.

    Args:
        but: those that pass as they are.
    """
    try:
        yield
    except but:
        raise
    except OSError as error:
        words = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise DiskFull(
                f"The server's disk is full or fails ({words}), so the file can't be kept. Its owner: free "
                "space in the folder of STEPWISE_DATA."
            ) from error
        raise StoreError(
            f"The files that were sent can't be used ({words}): let this user write to `inputs` in the "
            "folder of STEPWISE_DATA, or set that to another folder."
        ) from error
