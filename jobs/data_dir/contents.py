"""What Stepwise has in its data folder, by name; and how it is closed to other accounts of the machine,
without closing to them what isn't Stepwise's alone: an owner may name /tmp, a home or a shared disk.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from jobs.data_dir.private_files import (
    OTHERS,
    NotOurs,
    close_below,
    close_file,
    close_folder,
    keeps_accounts,
    who_can_replace,
)

log = logging.getLogger("stepwise")

DATABASE = "jobs.sqlite"
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite appends to the file's name for those that it keeps beside it, with the modes of the file."""
EVENTS = "events"
GRADIO = "gradio"
INPUTS = "inputs"
TEMPORARY = "tmp"
PACE = "pace.json"
LOCK = "lock"
"""The file that the folder's server holds locked."""
OWNER = "pid"
"""The file that says which process has the folder, or had it last."""
FOLDERS = (EVENTS, INPUTS, GRADIO, TEMPORARY)
FILES = (LOCK, OWNER, PACE, DATABASE, *(f"{DATABASE}{end}" for end in BESIDE))


def secure_folder(path: Path, ours: bool = False) -> None:
    """Closes a folder where it may be closed, and looks who else can put something in the place of what is
    kept in it. A place where a disk is mounted is as whoever runs this machine, or container, has it.

    Args:
        ours: by its name it is Stepwise's alone.

    Raises:
        NotOurs: anybody can. OSError.
    """
    before = path.stat().st_mode & OTHERS
    if before and (ours or _may_be_closed(path)):
        close_folder(path)
    status = path.stat()
    if words := who_can_replace(path, status):
        if not path.is_mount() and keeps_accounts(path):
            raise NotOurs(words)
        log.warning("Jobs aren't safe from other accounts of this machine: %s.", words)
    elif status.st_mode & OTHERS:
        log.warning(
            "Other accounts of this machine may look into %s: it isn't Stepwise's alone, and stays as it is. "
            "What Stepwise keeps in it is closed to them.",
            path,
        )
    elif before:
        log.warning("Other accounts of this machine could look into %s; now it is closed to them.", path)
    for parent in path.parents:
        if words := who_can_replace(parent, parent.stat()):
            log.warning("Another folder can be put in the place of %s: %s.", path, words)
            return


def _may_be_closed(path: Path) -> bool:
    """Whether others lose nothing where an existing folder is closed: it is this account's, has nothing but
    ours in it, and no part in how the machine is laid out, as /tmp, /srv or where a disk is mounted."""
    status = path.stat()
    return (
        os.name == "posix"
        and status.st_uid == os.geteuid()
        and not status.st_mode & stat.S_ISVTX
        and path.parent != Path(path.anchor)
        and not path.is_mount()
        and all(one.name in (*FOLDERS, *FILES) or one.name.startswith(f"{PACE}.") for one in path.iterdir())
    )


def close_contents(path: Path) -> None:
    """Closes what Stepwise has in its folder, as an older version may have left it; and makes the folders
    that are used later, so that nobody else can do so in one that isn't ours alone.

    Raises:
        NotOurs, OSError.
    """
    for one in (*(path / name for name in FILES), *path.glob(f"{PACE}.*")):
        close_file(one)
    for name in FOLDERS:
        folder = path / name
        if name != TEMPORARY or os.path.lexists(folder):
            close_folder(folder)
            close_below(folder)
    if (path / EVENTS).stat().st_mode & OTHERS:
        log.warning("Other accounts of this machine may look into %s: its disk knows no modes.", path)
