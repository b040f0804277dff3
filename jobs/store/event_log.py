"""An attempt's events on disk: one file per (job, attempt), written by whoever draws, read from the beginning
by anyone, in any process, while it grows.

The file is a row of frames. A frame is a header (how long the rest is, and a checksum), the pictures that the
event before didn't have, and the other fields as JSON, which says where in the file each of the event's
pictures stands. Where a frame isn't whole (its writer was killed, the disk is full) reading ends before it.
Pictures are kept nowhere else: who asks for one by its address is given it out of this file (pictures.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, get_args
from zlib import crc32

from jobs.data_dir.private_files import open_file
from jobs.store.job_json import migrated, to_json
from pipeline.events import Event, Phase
from pipeline.request import Job

_LENGTHS = struct.Struct(">II")
"""Bytes of new pictures; bytes of JSON. The lengths come first and then, as _CHECKSUM, the CRC-32 of lengths
and JSON: a disk's row of zeros is no frame. Each picture has a CRC-32 of its own, in the JSON."""
_CHECKSUM = struct.Struct(">I")
_HEADER = _LENGTHS.size + _CHECKSUM.size
_PICTURES = ("previews", "images")
_MOST = 1e15
"""What no number of seconds of ours comes near, and not a number isn't below."""
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Event)}
_FIELDS = tuple(field.name for field in dataclasses.fields(Event) if field.name not in ("job", *_PICTURES))


class _Picture(NamedTuple):
    """Where in the file a picture stands, in bytes, and its CRC-32."""

    offset: int
    size: int
    checksum: int


class _Frame(NamedTuple):
    """A frame but for its pictures. end: where the next one begins."""

    job: Job
    fields: dict[str, Any]
    end: int


class LogWriter:
    """Writes an attempt's events. Used by one thread at a time, and one writer has the file."""

    def __init__(self, path: Path) -> None:
        """A file that is there already, of a job forgotten since, is replaced: its readers keep the old one.

        Raises:
            OSError: it can't be made.
        """
        path.unlink(missing_ok=True)
        self._folder = path.parent
        # For the server's own account alone: prompts and pictures are their owners' affair.
        self._file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115 (open until `close`)
        self._end = 0
        self._job: Job | None = None
        self._pictures: dict[bytes, _Picture] = {}

    def append(self, event: Event) -> None:
        """Adds an event; every reader can see it when this returns.

        Raises:
            OSError: it isn't written (a full disk). The file ends with the event before, and later ones may
                be tried.
        """
        pictures: dict[bytes, _Picture] = {}
        new: list[bytes] = []
        place = self._end + _HEADER
        for picture in (*event.previews, *event.images):
            if picture in pictures:
                continue
            if picture not in self._pictures:
                new.append(picture)
                pictures[picture] = _Picture(place, len(picture), crc32(picture))
                place += len(picture)
            else:
                pictures[picture] = self._pictures[picture]
        fields = {name: getattr(event, name) for name in _FIELDS}
        fields |= {name: [pictures[picture] for picture in getattr(event, name)] for name in _PICTURES}
        if event.job != self._job:
            fields["job"] = to_json(event.job)
        # A path's name, which an error may quote, can hold what UTF-8 can't: it passes as it is.
        text = json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
        lengths = _LENGTHS.pack(sum(map(len, new)), len(text))
        checksum = _CHECKSUM.pack(crc32(text, crc32(lengths)))
        frame = b"".join((lengths, checksum, *new, text))
        self._write(frame, sync=event.last)
        self._end += len(frame)
        self._job, self._pictures = event.job, pictures

    def close(self) -> None:
        """Nothing more is written; readers can go on."""
        self._file.close()

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, frame: bytes, sync: bool) -> None:
        """One call of write(), so that the frame comes at once; more only where the system took a part.

        sync: brings the file to the disk itself. For the last event alone: the store will say that the job
        has ended, and must not say it of pictures that a power cut takes. An attempt that hadn't ended is
        drawn again anyway.
        """
        try:
            self._file.seek(self._end)
            rest = memoryview(frame)
            while rest:
                rest = rest[self._file.write(rest) :]
            if sync:
                os.fsync(self._file.fileno())
                _sync_name(self._folder)
        except OSError:
            with contextlib.suppress(OSError):  # where this fails too, readers end before the torn frame
                self._file.truncate(self._end)
            raise


class LogReader:
    """Reads an attempt's events, also while they are written. Used by one thread at a time. Opening the file
    counts as its use (retention.py)."""

    def __init__(self, path: Path) -> None:
        """path: may be missing yet: nothing was written so far."""
        self._path = path
        self._file: BinaryIO | None = None
        self._next = 0
        self._job: Job | None = None
        self._pictures: dict[_Picture, bytes] = {}

    def read(self) -> list[Event]:
        """The whole events since the last call, from the beginning at first; empty where nothing is new. A
        torn or damaged frame, and what follows it, is not there until it is whole.

        Raises:
            OSError: the file is there and can't be read.
        """
        events = []
        for frame in self._frames():
            event = self._event(frame)
            if event is None:
                break
            events.append(event)
        return events

    def latest(self) -> Event | None:
        """The newest whole event; None where nothing is new since the last call of this or `read`. Reads no
        picture of the events that it passes over.

        Raises:
            OSError: as of `read`.
        """
        for frame in reversed(list(self._frames())):
            if (event := self._event(frame)) is not None:
                return event
        return None

    def find(self, checksum: int, known: Callable[[bytes], bool]) -> bytes | None:
        """A picture of any event; None: there is none such. Reads no picture with another checksum.

        Args:
            checksum: its CRC-32. known: whether it is the one.

        Raises:
            OSError: as of `read`.
        """
        looked: set[_Picture] = set()
        for frame in filter(_readable, self._frames()):
            for place in {*_places(frame)} - looked:
                looked.add(place)
                if place.checksum == checksum and known(picture := self._at(place.offset, place.size)):
                    return picture
        return None

    def close(self) -> None:
        """Lets the file go."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frames(self) -> Iterator[_Frame]:
        """What is there behind the last event that was read, as far as it is whole."""
        if self._file is None:
            try:
                self._file = open_file(self._path)
            except FileNotFoundError:
                return
            with contextlib.suppress(OSError):  # a disk that takes nothing more: read it all the same
                os.utime(self._file.fileno() if os.utime in os.supports_fd else self._path)
        size = os.fstat(self._file.fileno()).st_size
        place, job = self._next, self._job
        while place + _HEADER <= size:
            lengths, checksum = (
                self._at(place, _LENGTHS.size),
                self._at(place + _LENGTHS.size, _CHECKSUM.size),
            )
            if len(lengths) < _LENGTHS.size or len(checksum) < _CHECKSUM.size:
                return
            pictures, letters = _LENGTHS.unpack(lengths)
            end = place + _HEADER + pictures + letters
            if end > size:
                return
            text = self._at(end - letters, letters)
            if _CHECKSUM.unpack(checksum)[0] != crc32(text, crc32(lengths)):
                return
            try:
                fields = json.loads(text.decode("utf-8", "surrogatepass"))
            except (ValueError, RecursionError):  # another version's: whole, and not as this one writes
                return
            if not isinstance(fields, dict):
                return
            with contextlib.suppress(ValueError):  # another version's, which this one can't draw anyway
                job = _job(fields["job"]) if "job" in fields else job
            if job is None:
                return
            yield _Frame(job, fields, end)
            place = end

    def _event(self, frame: _Frame) -> Event | None:
        """The event with its pictures, which is then the last that was read; None: one of them is damaged, or
        another version wrote what this one can't read."""
        held: dict[_Picture, bytes] = {}
        if not _readable(frame):
            return None
        for place in _places(frame):
            picture = self._pictures.get(place) or self._at(place.offset, place.size)
            if crc32(picture) != place.checksum:
                return None
            held[place] = picture
        values = {name: frame.fields[name] for name in _FIELDS if name in frame.fields}
        values["warnings"] = tuple(values.get("warnings", ()))
        for name in _PICTURES:
            values[name] = tuple(held[_Picture(*place)] for place in frame.fields.get(name, ()))
        self._next, self._job, self._pictures = frame.end, frame.job, held
        return Event(frame.job, **values)

    def _at(self, offset: int, size: int) -> bytes:
        assert self._file is not None
        self._file.seek(offset)
        return self._file.read(size)


def _job(values: object) -> Job:
    """Raises ValueError: another version's, which this one can't read."""
    if not isinstance(values, dict):
        raise ValueError
    return Job.model_validate(migrated(values))


def _places(frame: _Frame) -> list[_Picture]:
    return [_Picture(*place) for name in _PICTURES for place in frame.fields.get(name, ())]


def last_event(path: Path) -> Event | None:
    """The last whole event of a file, read without the pictures that came before; None: there is none, or no
    file. Counts as the file's use.

    Raises:
        OSError: the file is there and can't be read.
    """
    with LogReader(path) as reader:
        return reader.latest()


def _readable(frame: _Frame) -> bool:
    """Whether the fields that this version knows are of its types, and the pictures in the file."""
    for name in _FIELDS:
        value = frame.fields.get(name)
        default = _DEFAULTS[name]
        if name not in frame.fields or (value is None and default is None):
            continue
        if name in ("eta", "seconds"):
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
                return False
        elif name == "warnings":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                return False
        elif type(value) is not (int if isinstance(default, int) else str):
            return False
    if frame.fields.get("phase", "queued") not in get_args(Phase):
        return False
    pictures = [frame.fields.get(name, []) for name in _PICTURES]
    if not all(isinstance(places, list) for places in pictures):
        return False
    for place in itertools.chain(*pictures):
        if not isinstance(place, list) or [type(one) for one in place] != [int, int, int]:
            return False
        if min(place) < 0 or place[0] + place[1] > frame.end:
            return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_name(folder: Path) -> None:
    """Brings a new file's name to the disk, where the system keeps names apart from files."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
