"""What a model was seen to cost on a device: seconds by what they went to and by size, what follows from them
for a size that was never seen, and the small file that keeps it all between two runs of the server."""

from __future__ import annotations

import logging
import math
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from jobs.data_dir.private_files import open_file

log = logging.getLogger("stepwise")

LAST = 9
"""Samples that count, the newest. An odd number, so that the median is one that was seen."""
LOADS = 5
"""Images that say how busy the device is, the newest: most of them must agree to be believed."""
EACH = 2
"""Of these, at most so many of one drawing: it alone may have been held up."""
SIZES = 64
"""Sizes that are remembered of each cost; the one seen longest ago goes."""
APART = 1.5
"""Two sizes say how the cost grows where one has so many times the other's pixels; of nearer ones, chance
says more than growth."""

# Within what a device can take: of larger numbers sums and quotients would be infinite.
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
BySize = dict[Annotated[int, Field(gt=0, lt=2**40)], Annotated[list[Seconds], Field(min_length=1)]]


class Costs(BaseModel):
    """One model's on one device. Lists have the newest sample last; sizes are in pixels, width × height; what
    is kept by size is divided by the device's load at that time.

    plain, guided: seconds of a denoising step, without and with classifier-free guidance. decode: seconds
    from the last step to the PNG. loading: seconds to load the model. ready, cold: seconds from a drawing's
    turn to its first step where the model was loaded, and, loading apart, where it wasn't.
    """

    plain: BySize = Field(default_factory=dict)
    guided: BySize = Field(default_factory=dict)
    decode: BySize = Field(default_factory=dict)
    loading: list[Seconds] = Field(default_factory=list)
    ready: list[Seconds] = Field(default_factory=list)
    cold: list[Seconds] = Field(default_factory=list)

    def step(self, pixels: int, guided: bool, forwards: float) -> float | None:
        """Return the seconds of a step, or None where none was seen.

        Args:
            forwards: passes of the transformer in a guided step, against one without guidance: so much more a
                step is taken for, where only the other kind was seen.
        """
        own, other = (self.guided, self.plain) if guided else (self.plain, self.guided)
        seconds = at_size(own, pixels)
        if seconds is None and (seconds := at_size(other, pixels)) is not None:
            seconds *= forwards if guided else 1 / forwards
        return seconds

    def seconds_to_start(self, loaded: bool) -> float:
        """Seconds from a drawing's turn to its first step; 0 for what was never seen."""
        if loaded:
            return typical(self.ready or self.cold)
        return typical(self.cold or self.ready) + typical(self.loading)


class Part(NamedTuple):
    """Of an image, its steps or its decoding. known: where that is kept. seconds: of one; times:
    how many of it an image has."""

    known: BySize
    seconds: float
    times: int = 1


class DeviceCosts(BaseModel):
    """What drawings cost on one device.

    models: by `profile.drawn_as`, so that each profile and set of patches of a model has its own. loads: by
    how much the last few images took longer than those of the same kind before; whatever makes one slow
    (others on the same machine, heat) slows all down, and at once, while each size would need samples of its
    own to tell.
    """

    loads: list[Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]] = Field(default_factory=list)
    models: dict[str, Costs] = Field(default_factory=dict)

    @property
    def load(self) -> float:
        """1: as it was at first; 2: all takes twice as long."""
        return statistics.median([*self.loads, *[1.0] * (LOADS - len(self.loads))][:LOADS])

    def compare(self, pixels: int, parts: list[Part]) -> None:
        """What an image of this size took, or the parts of it that were seen, says of the load."""
        took = [
            (part.times * part.seconds, part.times * typical(part.known.get(pixels, []))) for part in parts
        ]
        seconds, usual = (sum(one[column] for one in took if one[1] > 0) for column in (0, 1))
        if seconds > 0:
            self.loads.append(seconds / usual)
            del self.loads[:-LOADS]

    def learn(self, pixels: int, parts: list[Part]) -> None:
        """Adds these as samples, at the present load."""
        for part in parts:
            add_at(part.known, pixels, part.seconds / self.load)


def add(samples: list[float], seconds: float) -> None:
    """Adds a sample; the oldest one goes."""
    samples.append(seconds)
    del samples[:-LAST]


def add_at(sizes: BySize, pixels: int, seconds: float) -> None:
    """As `add`, of a size."""
    samples = sizes.pop(pixels, [])  # and to the end: the order is that of use
    add(samples, seconds)
    sizes[pixels] = samples
    while len(sizes) > SIZES:
        del sizes[next(iter(sizes))]


def typical(samples: list[float]) -> float:
    """The median; of two, the lower: a device's first try is slow, its kernels being chosen. 0 for none."""
    return statistics.median_low(samples[-LAST:]) if samples else 0.0


def at_size(sizes: BySize, pixels: int) -> float | None:
    """Seconds at this size; None where no size was seen.

    Between two sizes the cost goes from one's to the other's as a power of the pixels, which a launch-bound
    GPU, matrix products (∝ pixels) and attention (∝ pixels²) all are, each in its range. Beyond them it grows
    as a·pixels + b·pixels², from the outermost size and another one of which it can be told; with none such,
    as the pixels.
    """
    if not sizes:
        return None
    if pixels in sizes:
        return typical(sizes[pixels])
    seen = {size: typical(samples) for size, samples in sizes.items()}
    smaller = max((size for size in seen if size < pixels), default=None)
    larger = min((size for size in seen if size > pixels), default=None)
    if smaller is not None and larger is not None:
        share = math.log(pixels / smaller) / math.log(larger / smaller)
        return seen[smaller] ** (1 - share) * seen[larger] ** share
    outermost = smaller if larger is None else larger
    assert outermost is not None
    others = [size for size in seen if max(size, outermost) >= APART * min(size, outermost)]
    other = min(others, key=lambda size: abs(size - outermost), default=None)
    linear, square = 1.0, 0.0
    if other is not None:
        each, others_each = seen[outermost] / outermost, seen[other] / other
        square = max(0.0, (each - others_each) / (outermost - other))
        linear = max(0.0, each - square * outermost)
    grown = (linear + square * pixels) / ((linear + square * outermost) or 1.0)
    return seen[outermost] * pixels / outermost * grown


# The file: {device: costs}.

_Devices = TypeAdapter(dict[str, DeviceCosts])


def read_costs(path: Path) -> dict[str, DeviceCosts]:
    """Return what a file has, by device (`Engine.device`, `Event.device`); nothing where there is none, or a
    damaged one, which the log says."""
    try:
        with open_file(path) as file:
            devices = _Devices.validate_json(file.read())
        # An entry that names no line is an older file's: it was of all lines at once, so it is learned anew.
        return {device: costs for device, costs in devices.items() if ": " in device}
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its contents are damaged"
        log.warning("%s can't be read (%s): how long drawings take is learned anew.", path, reason)
        return {}


def write_costs(path: Path, costs: Mapping[str, DeviceCosts]) -> None:
    """Puts these devices' into the file, whole or not at all; other devices' stay (of two written at the same
    moment one may miss until it is written again).

    Raises:
        OSError: the file is as it was.
    """
    content = _Devices.dump_json(read_costs(path) | dict(costs))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
