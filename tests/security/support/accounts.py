"""What the tests of the machine's other accounts share: one that tries, what it plants, and a folder that an
older version left open."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.store.event_log import LogWriter
from jobs.store.log_names import log_path
from jobs.store.sqlite import SqliteStore
from pipeline.events import Event
from pipeline.request import Job

STRANGER = 12345
"""The number of an account that there isn't."""
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="only root can become another account")
UMASKS = pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], ids="{:03o}".format)
ID = "11111111-2222-4333-8444-555555555555"
PROMPT = "a fox that only its owner may read of"
JOB = Job(
    id=ID, model="tiny", prompt=PROMPT, negative_prompt="", width=64, height=64, steps=2, guidance=1.0,
    seed=1, images=1,
)  # fmt: skip
FILES = (
    "jobs.sqlite",
    "jobs.sqlite-wal",
    "jobs.sqlite-shm",
    "jobs.sqlite-journal",
    "pace.json",
    "lock",
    "pid",
)
FOLDERS = ("events", "inputs", "gradio", "tmp")


@contextlib.contextmanager
def masked(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def as_stranger(attempt: Callable[[], object]) -> str:
    """What another account gets by this: the name of the error, or the result in words."""

    def become() -> None:
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)

    return forked(become, attempt)


def forked(become: Callable[[], object], attempt: Callable[[], object]) -> str:
    """The same of a child of this process, which does the first of these before."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            become()
            said = repr(attempt())
        except BaseException as error:
            said = type(error).__name__
        os.write(writes, said.encode()[:1000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def plant(path: Path, to: Path) -> None:
    """A link that another account leaves there."""
    path.symlink_to(to)
    if ROOT:
        os.lchown(path, STRANGER, STRANGER)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_ones(folder: Path) -> list[str]:
    """What in a folder others may do anything with."""
    return [
        f"{path.relative_to(folder)} {mode(path):o}"
        for path in folder.rglob("*")
        if not path.is_symlink() and mode(path) & 0o077
    ]


def older(folder: Path, umask: int = 0o022) -> Path:
    """A data folder as an older version left it, which made all as the umask was."""
    with masked(umask):
        for name in FOLDERS:
            (folder / name / "within").mkdir(parents=True)
            (folder / name / "within" / "file").touch()
        SqliteStore(folder / "jobs.sqlite").close()
        for name in FILES:
            (folder / name).touch()
        (folder / "jobs.sqlite-journal").unlink()
        (folder / "pace.json.abc").touch()
        with LogWriter(log_path(folder / "events", ID, 1)) as log:
            log.append(Event(JOB, "finished"))
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
    return folder
