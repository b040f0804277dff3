"""Where a drawing's pictures go: their names, their format, and that each is there whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from cli.errors import FileError, UsageError
from cli.terminal import put_bytes
from pipeline.catalog.paths import owner_path

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
QUALITY = 95
"""Of JPEG and WebP, 0 to 100. Above it files grow and pictures hardly gain (Pillow's documentation)."""
LONGEST = 40
"""Characters of the prompt in a name that we choose."""
PROBE = bytes(2 << 20)
"""What is written for a moment before drawing, so that a full disk is seen then: 2 MiB, as much as a picture
of a megapixel takes."""


class Target:
    """What `--output` means: a file, a folder in which names are chosen, or standard output."""

    def __init__(self, output: str | None, images: int) -> None:
        """
        Args:
            output: as it was given; None is this folder. images: how many pictures are asked for.

        Raises:
            UsageError: no such format, or several pictures, or a terminal, for standard output.
        """
        self.stdout = output == "-"
        if self.stdout:
            if images > 1:
                raise UsageError("--output - takes one picture; name a file or a folder for several.")
            if sys.stdout is not None and sys.stdout.isatty():
                raise UsageError("--output - would write a PNG to the terminal; redirect it: > picture.png")
            return
        output = output if output is not None else "."
        try:
            self.path = owner_path(output)
        except ValueError as error:
            raise UsageError(f"--output: {error}.") from None
        self.folder = output.endswith("/") or _is_folder(self.path)
        if not self.folder and self.path.suffix.lower() not in FORMATS:
            raise UsageError(f"--output {output} must end in {', '.join(FORMATS)} or be a folder.")

    def ensure_writable(self, images: int) -> None:
        """Writes a file there and removes it, and looks at those that it would replace.

        Raises:
            FileError: no folder, no permission, no space, or something in the way that is no plain file.
        """
        if self.stdout:
            return
        for path in [self.path / "picture.png"] if self.folder else self._names(images):
            with _beside(path, PROBE):
                pass

    def save(self, pngs: tuple[bytes, ...], prompt: str, seed: int) -> list[str]:
        """Writes the pictures, in this order, and gives their paths (none for standard output).

        Raises:
            FileError. BrokenPipeError and OutputLost, of standard output.
        """
        if self.stdout:
            put_bytes(pngs[0])
            return []
        if self.folder:
            paths = [_free(self.path / f"{_slug(prompt)}-{seed + k}.png") for k in range(len(pngs))]
        else:
            paths = self._names(len(pngs))
        for path, png in zip(paths, pngs, strict=True):
            with _beside(path, _converted(png, path.suffix.lower())) as (temporary, real):
                temporary.replace(real)  # at once: nobody ever sees half a picture
        return [str(path) for path in paths]

    def _names(self, images: int) -> list[Path]:
        """fox.png, or fox-1.png, fox-2.png, … of several."""
        if images == 1:
            return [self.path]
        return [self.path.with_stem(f"{self.path.stem}-{k + 1}") for k in range(images)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that can't be one, such as a too long one: said when it is tried
        return False


def _slug(prompt: str) -> str:
    """The prompt's beginning as a file name."""
    words = re.sub(r"\W+", "-", prompt.lower())[:LONGEST].strip("-_")
    return words or "picture"


def _free(path: Path) -> Path:
    """This path, or the first of path-2, path-3, … that isn't taken."""
    stem, number = path.stem, 1
    while os.path.lexists(path):  # a link to nothing, too: it would be written through
        number += 1
        path = path.with_stem(f"{stem}-{number}")
    return path


def _real(path: Path) -> Path:
    """The file that this name means: a symbolic link's own, so that not the link is replaced (as cp has it).

    Raises:
        FileError: something is in the way.
    """
    real = Path(os.path.realpath(path))
    try:
        mode = real.lstat().st_mode
    except FileNotFoundError:
        return real
    except OSError as error:
        raise FileError(f"{path} can't be written: {error.strerror}.") from error
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is no plain file; choose another name (- is standard output).")
    if not os.access(real, os.W_OK):
        raise FileError(f"{path} can't be written: it is read-only.")
    return real


def _converted(png: bytes, suffix: str) -> bytes:
    """The picture in this format. Only a PNG carries its recipe."""
    if FORMATS[suffix] == "PNG":
        return png
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, FORMATS[suffix], quality=QUALITY)
    return buffer.getvalue()


@contextlib.contextmanager
def _beside(path: Path, data: bytes) -> Iterator[tuple[Path, Path]]:
    """A file with this data beside the one that `path` means, for as long as the block: (it, the one meant).
    A kill in there leaves it, as .stepwise-….part.

    Raises:
        FileError: of the block, too.
    """
    real = _real(path)
    temporary = real.parent / f".stepwise-{uuid.uuid4().hex}.part"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
            yield temporary, real
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path} can't be written: {error.strerror}.") from error
