"""Drawings that wait where a test wants them to, in this process or in those that it starts: so that what a
test does to a drawing finds it there, however quick or busy the machine is.

    steps.hold(2)          # every drawing waits once it has shown its second step
    tab.wait_for_step(2)
    …                      # it is still being drawn
    steps.go_on()

What waits in the process itself is inside/sitecustomize.py.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal

import pytest

from tests.inside.sitecustomize import HELD_STEPS, Held

JAVASCRIPT = """
import * as files from "node:fs";
const held = process.env.TESTS_HELD_STEPS;
const hold = (where) => {
  files.writeFileSync(`${held}.new`, `${where}`);
  files.renameSync(`${held}.new`, held);
};
const goOn = () => files.rmSync(held, { force: true });
"""
"""`hold` and `goOn` of Steps, for a module of Node with `Steps.environment`."""


class Steps:
    """Those of the processes that know this file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def environment(self) -> dict[str, str]:
        """What such a process has in its environment."""
        return {HELD_STEPS: str(self._file)}

    def hold(self, where: int | Literal["loading", "decoding"]) -> None:
        """Every drawing waits after so many steps, of all its pictures, once the last of them is shown; or in
        this phase. One that waited elsewhere goes on to there. Stopping one ends its waiting."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{where}", encoding="utf-8")
        new.replace(self._file)  # whole, for those who look meanwhile

    def go_on(self) -> None:
        """Nothing waits any more."""
        self._file.unlink(missing_ok=True)

    def here(self, patch: pytest.MonkeyPatch) -> Steps:
        """Those of this process, too, until the patch is undone."""
        for name, change in Held(self._file).changes(patch.setattr).items():
            change(importlib.import_module(name))
        return self
