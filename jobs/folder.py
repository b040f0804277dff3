"""Where jobs are kept: STEPWISE_DATA, a Space's attached storage, or the user's own data directory; used by
one server at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_data_path

from pipeline.errors import SettingError

log = logging.getLogger("stepwise")

SPACE_STORAGE = Path("/data")
"""Where a Space finds the storage that is attached to it."""
PATIENCE = 45.0
"""Seconds to wait for the folder's last server to end: it may be finishing its drawing, which takes as long
as STEPWISE_GRACE, 30 s, and some more to close."""
OWNER = "pid"
"""The file that says which process has the folder, or had it last."""
MOST_SERVERS = 100
"""Of one user and machine, without a STEPWISE_DATA of their own."""


class DataFolder:
    """A folder that this process has for itself until `close`, or until it ends, however it ends."""

    def __init__(self, path: Path | None = None, patience: float = PATIENCE) -> None:
        """
        Args:
            path: made where it isn't there. None: the usual place; where another server uses that, the first
                free one beside it, so that several run without a setting; where it can't be written to, a
                temporary one, with a warning.
            patience: seconds to wait for a `path` that is in use.

        Raises:
            SettingError: it can't be written to, or another server uses it. Where that is waited for, the log
                says so at once.
        """
        if path is not None:
            self.path, self._lock = path, _locked(path, patience)
            return
        usual = usual_path()
        for number in range(1, MOST_SERVERS + 1):
            self.path = usual if number == 1 else usual.with_name(f"{usual.name}-{number}")
            try:
                self._lock = _locked(self.path, 0)
                return
            except _InUse:
                continue
            except SettingError as error:
                self.path = Path(tempfile.mkdtemp(prefix="stepwise-"))
                self._lock = _locked(self.path, 0)
                log.warning("%s Until then they are in %s, and lost with it.", error, self.path)
                return
        raise SettingError(f"{MOST_SERVERS} servers use {usual} and its neighbours; set STEPWISE_DATA.")

    @property
    def database(self) -> Path:
        return self.path / "jobs.sqlite"

    @property
    def logs(self) -> Path:
        """The folder of the jobs' events."""
        return self.path / "events"

    @property
    def pace(self) -> Path:
        return self.path / "pace.json"

    def close(self) -> None:
        """Lets the next server have it."""
        self._lock.release()


class _InUse(SettingError):
    pass


def usual_path() -> Path:
    """Where jobs are kept without a setting."""
    on_space = bool(os.environ.get("SPACE_ID"))
    if on_space and SPACE_STORAGE.is_dir() and os.access(SPACE_STORAGE, os.W_OK):
        return SPACE_STORAGE / "stepwise"
    return user_data_path("stepwise", appauthor=False)


def _locked(path: Path, patience: float) -> FileLock:
    try:
        (path / "events").mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / "lock", thread_local=False)  # whichever thread closes it
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not patience:
                raise
            log.warning("%s; waiting up to %g s for its end.", _in_use(path), patience)
            lock.acquire(timeout=patience)
        with contextlib.suppress(OSError):  # a full disk, which others say: it is for words only
            (path / OWNER).write_text(f"{os.getpid()}\n", encoding="ascii")
    except Timeout:
        raise _InUse(f"{_in_use(path)}: end that one, or set STEPWISE_DATA to another folder.") from None
    except OSError as error:
        raise SettingError(
            f"Jobs can't be kept in {path}: {error.strerror or error}. Set STEPWISE_DATA to a folder that "
            "can be written to."
        ) from error
    return lock


def _in_use(path: Path) -> str:
    """That another server has this folder, and which process that is, as far as it has said so."""
    try:
        number = (path / OWNER).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        number = ""
    return f"Another Stepwise uses the folder {path}" + (f" (process {number})" if number.isdecimal() else "")
