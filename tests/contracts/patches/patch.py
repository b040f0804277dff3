"""What is written down of each place where Stepwise reaches into a library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patch:
    """library: as pip calls it. file: of ours. code: what stands there, of which the file has it. place: the
    library's side. reason: why it can't be done otherwise. test: the file and function that look at it."""

    library: str
    file: str
    code: str
    place: str
    reason: str
    test: str
