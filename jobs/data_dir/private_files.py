"""Folders and files that no other account of this machine can get at: made so whatever the umask is, and
closed where they were open.

A name of ours may have been given to something else by whoever could write here once. So nothing is followed
(symbolic links), changed through a second name (hard links) or used that is another account's. Where a disk
knows no accounts and no modes, as FAT, all stays as it is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from io import FileIO
from pathlib import Path

_POSIX = os.name == "posix"
OTHERS = 0o077 if _POSIX else 0
"""What a mode lets other accounts do, those of the same group too; Windows' modes say nothing of them."""
_LOOK = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""How something is opened that may be a link or a pipe: the one isn't followed, for the other's writer nobody
waits."""
_MOST_LINKS = 40
"""One after the other, as Linux has it (path_resolution(7))."""


class NotOurs(PermissionError):
    """What has a name of ours isn't this account's own: says what it is."""

    def __init__(self, words: str) -> None:
        super().__init__(errno.EPERM, words)

    def __str__(self) -> str:
        return str(self.strerror)


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it that are missing, closed; one that is there stays as it is.

    Raises:
        OSError: it can't be made, or is no folder.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            one.mkdir(mode=0o700)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def close_folder(path: Path) -> None:
    """Makes a folder under a name of ours, or closes it; what is in it stays as it is.

    Raises:
        NotOurs. OSError: it can't be made.
    """
    if not os.path.lexists(path):
        make_folder(path)
    _close(path, folder=True)


def close_file(path: Path) -> None:
    """Closes a file under a name of ours; nothing where there is none.

    Raises:
        NotOurs, OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        _close(path, folder=False)


def make_file(path: Path) -> None:
    """Makes an empty file under a name of ours, or closes the one that is there.

    Raises:
        NotOurs. OSError: it can't be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        close_file(path)


def check_file(path: Path) -> None:
    """Looks whether a name of ours is free, or a file's of this account's; opens nothing.

    Raises:
        NotOurs, OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        _check(path, path.lstat(), folder=False)


def write_file(path: Path, content: bytes) -> None:
    """Writes a small file under a name of ours.

    Raises:
        NotOurs, OSError.
    """
    make_file(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)), "wb") as file:
        file.write(content)


def open_file(path: Path) -> FileIO:
    """Opens a file of ours for reading, without a buffer.

    Raises:
        FileNotFoundError: there is none, or what has its name isn't this account's plain file.
        OSError: it can't be read.
    """
    try:
        handle = os.open(path, _LOOK | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if path.is_symlink() or path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no plain file", str(path)) from error
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or not _is_ours(path, status):
            raise FileNotFoundError(errno.ENOENT, "no plain file of this account's", str(path))
        return os.fdopen(handle, "rb", buffering=0)
    except BaseException:
        os.close(handle)
        raise


def close_below(folder: Path) -> None:
    """Closes all that is in a folder of ours, at any depth; what isn't this account's own is passed over."""
    if not _POSIX:
        return
    owner = folder.lstat().st_uid
    for _, folders, files, within in os.fwalk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):  # gone just now, or a disk without modes
                status = os.stat(name, dir_fd=within, follow_symlinks=False)
                plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
                ours = status.st_uid == owner and (plain or stat.S_ISDIR(status.st_mode))
                if ours and status.st_mode & OTHERS:
                    _take_from_others(os.open(name, _LOOK, dir_fd=within))


def followed(path: Path) -> Path:
    """The path without symbolic links. Followed are only those of this account, of root, and of whoever owns
    the folder that they are in, who could do as he likes there anyway (as Linux has it with
    fs.protected_symlinks).

    Raises:
        NotOurs: another account has made one of them. OSError: they lead nowhere.
    """
    if not _POSIX:
        return path
    path, links = path.absolute(), 0
    done, rest = Path(path.anchor), list(reversed(path.parts[1:]))
    while rest:
        name = rest.pop()
        one = done.parent if name == ".." else done / name
        try:
            status = one.lstat()
        except FileNotFoundError:
            status = None
        if status is None or not stat.S_ISLNK(status.st_mode):
            done = one
            continue
        if status.st_uid not in (os.geteuid(), 0, done.stat().st_uid):
            raise NotOurs(f"{one} is a symbolic link of another account's ({_name(status)})")
        if (links := links + 1) > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        to = one.readlink()
        done = Path(to.anchor) if to.anchor else done
        rest.extend(reversed(to.parts[1:] if to.anchor else to.parts))
    return done


def who_can_replace(folder: Path, status: os.stat_result) -> str:
    """Which other accounts can put something else in the place of what is in a folder, in words; empty: none
    but root. The group's aren't counted: on many systems it has one member, its owner."""
    if not _POSIX:
        return ""
    if status.st_uid not in (os.geteuid(), 0):
        return f"{folder} belongs to another account ({_name(status)})"
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return f"every account of this machine can write to {folder}"
    return ""


def keeps_accounts(folder: Path) -> bool:
    """Whether the disk of a folder knows accounts and modes: what is made there shows them.

    Raises:
        OSError: nothing can be written there.
    """
    with tempfile.TemporaryDirectory(prefix="stepwise-", dir=folder) as made:
        status = Path(made).stat()
    return _POSIX and status.st_uid == os.geteuid() and not status.st_mode & OTHERS


def _close(path: Path, folder: bool) -> None:
    status = path.lstat()
    _check(path, status, folder)
    if not _POSIX or not status.st_mode & OTHERS:
        return
    handle = os.open(path, _LOOK)
    try:
        _check(path, os.fstat(handle), folder)
    except BaseException:
        os.close(handle)
        raise
    with contextlib.suppress(OSError):  # a disk without modes
        _take_from_others(handle)


def _take_from_others(handle: int) -> None:
    """Of what is open here, which is closed then."""
    try:
        os.fchmod(handle, stat.S_IMODE(os.fstat(handle).st_mode) & ~OTHERS)
    finally:
        os.close(handle)


def _check(path: Path, status: os.stat_result, folder: bool) -> None:
    kind = status.st_mode
    if stat.S_ISLNK(kind):
        what = "is a symbolic link, which may lead anywhere"
    elif not (stat.S_ISDIR(kind) if folder else stat.S_ISREG(kind)):
        what = f"is no plain {'folder' if folder else 'file'}"
    elif not _is_ours(path, status):
        what = f"belongs to another account ({_name(status)})"
    elif not folder and status.st_nlink > 1:
        what = "is a file that has another name, too (a hard link)"
    else:
        return
    raise NotOurs(f"{path} {what}")


def _is_ours(path: Path, status: os.stat_result) -> bool:
    """Whether something is this account's, or of whoever owns the folder that it is in: on a disk that knows
    no accounts all is one's, whoever that is."""
    return not _POSIX or status.st_uid in (os.geteuid(), path.parent.stat().st_uid)


def _name(status: os.stat_result) -> str:
    import pwd  # here, for there is none on Windows

    try:
        return pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        return f"number {status.st_uid}"
