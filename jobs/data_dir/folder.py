"""Where jobs are kept: STEPWISE_DATA, a Space's attached storage, or the user's own data directory; used by
one server at a time, and closed to other accounts of the machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_data_path

from jobs.data_dir.contents import (
    DATABASE,
    EVENTS,
    GRADIO,
    INPUTS,
    LOCK,
    OWNER,
    PACE,
    TEMPORARY,
    close_contents,
    secure_folder,
)
from jobs.data_dir.private_files import (
    NotOurs,
    check_file,
    close_folder,
    followed,
    make_folder,
    open_file,
    write_file,
)
from pipeline.errors import SettingError

log = logging.getLogger("stepwise")

SPACE_STORAGE = Path("/data")
"""Where a Space finds the storage that is attached to it."""
PATIENCE = 45.0
"""Seconds to wait for the folder's last server to end: it may be finishing its drawing, which takes as long
as STEPWISE_GRACE, 30 s, and some more to close."""
MOST_SERVERS = 100
"""Of one user and machine, without a STEPWISE_DATA of their own."""
MADE_UP = "stepwise-"
"""What the names of temporary data folders begin with."""


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
            SettingError: it can't be written to, another account has a hand in it, or another server uses
                it. Where that is waited for, the log says so at once.
        """
        self._temporary = False
        if path is not None:
            self.path, self._lock = _locked(path, patience)
            return
        try:
            self.path, self._lock = _first_free(usual_path())
        except _Unusable as error:
            self._temporary = True
            self.path, self._lock = _made_up(error)
            log.warning("%s Until then they are in %s, and go when the server ends.", error, self.path)

    @property
    def database(self) -> Path:
        return self.path / DATABASE

    @property
    def logs(self) -> Path:
        """The folder of the jobs' events."""
        return self.path / EVENTS

    @property
    def inputs(self) -> Path:
        """The folder of the pictures and weights that requests bring along."""
        return self.path / INPUTS

    @property
    def pace(self) -> Path:
        return self.path / PACE

    @property
    def gradio(self) -> Path:
        """What Gradio may have for itself."""
        return self.path / GRADIO

    def close(self) -> None:
        """Lets the next server have it."""
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


class _InUse(SettingError):
    pass


class _Unusable(SettingError):
    pass


def usual_path() -> Path:
    """Where jobs are kept without a setting.

    Raises:
        SettingError: there is no such place: this account has no home.
    """
    on_space = bool(os.environ.get("SPACE_ID"))
    if on_space and SPACE_STORAGE.is_dir() and os.access(SPACE_STORAGE, os.W_OK):
        return SPACE_STORAGE / "stepwise"
    try:
        return user_data_path("stepwise", appauthor=False)
    except RuntimeError as error:  # of platformdirs (4.14), where neither HOME nor the users' list names one
        raise _Unusable(
            "Jobs can't be kept in this account's home, for it has none. Set STEPWISE_DATA to a folder."
        ) from error


def ensure_temporary(data: Path | None) -> None:
    """Where no temporary file can be written on this machine, lets this process and its children write theirs
    to the data folder: libraries ask for a place when they are imported.

    Args:
        data: STEPWISE_DATA.

    Raises:
        SettingError: nothing can be written there either.
    """
    try:
        tempfile.gettempdir()
        return
    except FileNotFoundError as error:
        why = error
    folder = usual_path() if data is None else data.expanduser()
    try:
        folder = followed(folder) / TEMPORARY
        make_folder(folder.parent)
        secure_folder(folder.parent, ours=data is None)
        close_folder(folder)
        os.environ["TMPDIR"] = str(folder)
        tempfile.gettempdir()
    except OSError as error:
        raise SettingError(
            f"{why.strerror or why}, and nothing can be written to {folder} either: "
            f"{error.strerror or error}. Set TMPDIR or STEPWISE_DATA to a folder that can be written to."
        ) from error


def _first_free(usual: Path) -> tuple[Path, FileLock]:
    """The usual place, or the first beside it that no other server has."""
    for number in range(1, MOST_SERVERS + 1):
        path = usual if number == 1 else usual.with_name(f"{usual.name}-{number}")
        with contextlib.suppress(_InUse):
            return _locked(path, 0, ours=True)
    raise SettingError(f"{MOST_SERVERS} servers use {usual} and its neighbours; set STEPWISE_DATA.")


def _made_up(why: SettingError) -> tuple[Path, FileLock]:
    """A folder among the temporary files, where those that killed servers left there are deleted.

    Raises:
        SettingError: there is no place for it either.
    """
    try:
        for path in Path(tempfile.gettempdir()).glob(f"{MADE_UP}*"):
            _delete_left(path)
        path = Path(tempfile.mkdtemp(prefix=MADE_UP))
    except OSError as error:
        words = f"{why} Nor can they be kept among the temporary files: {error.strerror or error}."
        raise SettingError(words) from error
    return _locked(path, 0, ours=True)


def _delete_left(path: Path) -> None:
    """Deletes a temporary folder of this account's that no server has any more. Others could put nothing
    into it: then it would be something else of ours, and the lock in it theirs."""
    with contextlib.suppress(OSError, Timeout):
        status = path.lstat()
        ours = stat.S_ISDIR(status.st_mode) and os.name == "posix" and status.st_uid == os.geteuid()
        if ours and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and (path / LOCK).exists():
            with FileLock(path / LOCK, timeout=0):
                shutil.rmtree(path)


def _locked(named: Path, patience: float, ours: bool = False) -> tuple[Path, FileLock]:
    """The folder, without symbolic links, closed and locked. ours: by its name it is Stepwise's alone."""
    try:
        path = followed(named)
        make_folder(path)
        secure_folder(path, ours)
        for name in (LOCK, OWNER):
            check_file(path / name)
        lock = FileLock(path / LOCK, mode=0o600, thread_local=False)  # whichever thread closes it
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not patience:
                raise
            log.warning("%s; waiting up to %g s for its end.", _in_use(path), patience)
            lock.acquire(timeout=patience)
        try:
            close_contents(path)
            with contextlib.suppress(OSError):  # a full disk, which others say: it is for words only
                write_file(path / OWNER, f"{os.getpid()}\n".encode("ascii"))
        except BaseException:
            lock.release()
            raise
    except Timeout:
        raise _InUse(f"{_in_use(named)}: end that one, or set STEPWISE_DATA to another folder.") from None
    except NotOurs as error:
        raise _Unusable(
            f"Jobs can't be kept in {named} without other accounts of this machine: {error}. Put that right, "
            "or set STEPWISE_DATA to a folder of this account's own."
        ) from error
    except OSError as error:
        raise _Unusable(
            f"Jobs can't be kept in {named}: {error.strerror or error}. Set STEPWISE_DATA to a folder that "
            "can be written to."
        ) from error
    return path, lock


def _in_use(path: Path) -> str:
    """That another server has this folder, and which process that is, as far as it has said so."""
    try:
        with open_file(path / OWNER) as file:
            number = file.read(20).decode("ascii").strip()
    except (OSError, ValueError):
        number = ""
    return f"Another Stepwise uses the folder {path}" + (f" (process {number})" if number.isdecimal() else "")
