"""What the tests change inside Python processes: servers, workers, the command line. Python runs a module of
this name at its start where its folder is on PYTHONPATH, and `tests` puts it there for what the tests
start; the process that runs the tests imports it by hand. What it changes is what the environment asks for:

TESTS_AVX512_BF16=on or off: which way bitsandbytes (0.50.2) takes on a CPU, whatever the processor is. Where
    it isn't set, the processor decides, as it does for an owner. `on` keeps 4-bit weights packed for
    AVX512-BF16 and multiplies with them packed, which takes other shapes than unpacking them. All of that is
    bitsandbytes' own, except that a processor without those instructions can't run its product: there
    `packed_product` stands in for it. The whole suite that way:

        TESTS_AVX512_BF16=on make test

TESTS_HELD_STEPS: a file that says where drawings wait, for as long as it says so
(tests/support/steps.py writes it).

TESTS_SCRIPT=on: a script draws instead of this machine's device (scripted.py).

TESTS_EVENT_LOOPS: a file that is told where an event loop waits for a disk (event_loops.py).

TESTS_DECLARED: one more parameter of a drawing, as JSON, that is declared beside those of
    pipeline/parameters.py before anything is made from them (tests/test_one_schema.py).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

AVX512_BF16, HELD_STEPS, EVENT_LOOPS = "TESTS_AVX512_BF16", "TESTS_HELD_STEPS", "TESTS_EVENT_LOOPS"
DECLARED, SCRIPT = "TESTS_DECLARED", "TESTS_SCRIPT"
SCRIPTED = {SCRIPT: "on"}
"""What a server has in its environment where a script draws for it."""
POLL = 0.005
"""Seconds between two looks at the file of held steps."""
Change = Callable[[Any, str, Any], None]
"""setattr, or a MonkeyPatch's."""


# Which way bitsandbytes takes.


def packed_product(A: Any, B: Any, out: Any = None, state: Any = None) -> Any:
    """Stands in for bitsandbytes' `functional.gemv_4bit` of packed weights.

    Args:
        A: [..., K].
        B: [N, K/2] bytes, as `_convert_weight_packed_for_cpu` lays them out: of each 32 rows, one pair of
            columns after the other; a byte holds two codes that are 32 apart in that order.
        out: never given.
        state: has the scales as [K/blocksize, N].

    Returns:
        [..., N], computed in bf16 as there.
    """
    import torch

    assert out is None
    rows, columns = state.shape
    bytes_of_32 = B.reshape(-1, 32)
    codes = torch.cat([bytes_of_32 & 0xF, bytes_of_32 >> 4], dim=-1).long()
    codes = codes.reshape(rows // 32, columns // 2, 32, 2).transpose(1, 2).reshape(rows, columns)
    scales = state.absmax.float().T.repeat_interleave(state.blocksize, dim=1)
    weight = (state.code[codes] * scales).to(torch.bfloat16)
    return torch.nn.functional.linear(A.to(torch.bfloat16), weight).to(A.dtype)


def take_way(packed: bool, functional: Any) -> None:
    """Changes bitsandbytes' module `functional`, before others import from it."""
    if packed and not functional.has_avx512bf16():
        functional.gemv_4bit = packed_product
    functional.has_avx512bf16 = lambda: packed


# Where drawings wait.


class Held:
    """The file that says where this process' drawings wait: after how many steps, of all their pictures, once
    the preview of the last is shown; or in which phase, loading or decoding. One that is stopped waits no
    longer. While there is such a file every step is shown, and waits until it is, so that how quick steps are
    doesn't decide which previews there are."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._of_thread = threading.local()

    def where(self) -> str:
        try:
            return self._file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def wait_after(self, steps: int) -> None:
        """In the thread that draws, which has shown this many steps of all its pictures."""
        self._wait_while(lambda: (at := self.where()).isdigit() and steps >= int(at))

    def wait_in(self, phase: str) -> None:
        """In the thread that draws, which is in this phase."""
        self._wait_while(lambda: self.where() == phase)

    def _wait_while(self, true: Callable[[], bool]) -> None:
        run = getattr(self._of_thread, "run", None)
        while true() and not (run and run.cancel.is_set):
            time.sleep(POLL)

    def around_check(self, check: Callable[[Any], None]) -> Callable[[Any], None]:
        """Of Run.raise_if_cancelled, which the thread that draws calls at each step and while it loads."""

        def held(run: Any) -> None:
            self._of_thread.run = run
            if run.latest.phase == "loading":
                self.wait_in("loading")
            check(run)

        return held

    def around_offer(self, offer: Callable[..., None]) -> Callable[..., None]:
        """Of Previewer.offer, which follows each step's check."""

        def held(previewer: Any, progress: dict[str, Any], estimate: Any) -> None:
            run, step = self._of_thread.run, progress["step"]
            if not self.where():
                return offer(previewer, progress, estimate)
            previewer._shown = float("-inf")
            offer(previewer, progress, estimate)
            self._wait_while(lambda: run.latest.step < step and not previewer._running.done())
            return self.wait_after((run.latest.image - 1) * run.job.steps + step)

        return held

    def around_decode(self, decode: Callable[..., Any]) -> Callable[..., Any]:
        """Of pipeline.sampling.sample's `_decode`."""

        def held(*arguments: Any) -> Any:
            self.wait_in("decoding")
            return decode(*arguments)

        return held

    def changes(self, change: Change = setattr) -> dict[str, Callable[[Any], None]]:
        """What is to be changed in which module."""

        def run(module: Any) -> None:
            change(module.Run, "raise_if_cancelled", self.around_check(module.Run.raise_if_cancelled))

        def preview(module: Any) -> None:
            change(module.Previewer, "offer", self.around_offer(module.Previewer.offer))

        def draw(module: Any) -> None:
            change(module, "_decode", self.around_decode(module._decode))

        return {
            "pipeline.run": run,
            "pipeline.sampling.preview": preview,
            "pipeline.sampling.sample": draw,
        }


# One more parameter.


def declare(parameter: str, module: Any) -> None:
    """Adds a parameter, given as JSON, to the declarations of this module."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(parameter).items()
    }
    module.PARAMETERS[fields["name"]] = module.Parameter(**fields)


# How workers start.


def start_with(module: Any, popen: Any, change: Change = setattr) -> None:
    """Changes a module, as jobs.workers.launch: what starts its processes instead of subprocess.Popen."""
    change(module, "subprocess", SimpleNamespace(**vars(module.subprocess) | {"Popen": popen}))


# In a process that begins.


class WhenImported:
    """Finds one module as Python would, and changes it once it has run."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self.name, self._change = name, change

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            self._change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


def begin() -> None:
    """Does what the environment says, to modules as they come. Once a process."""
    known = {finder.name for finder in sys.meta_path if type(finder).__name__ == WhenImported.__name__}
    changes: dict[str, Callable[[Any], None]] = {}
    if way := os.environ.get(AVX512_BF16):
        assert way in ("on", "off"), f"{AVX512_BF16} is {way!r}; it may be on or off."
        changes["bitsandbytes.functional"] = lambda functional: take_way(way == "on", functional)
    held = Held(Path(file)) if (file := os.environ.get(HELD_STEPS)) else None
    if held is not None:
        changes |= held.changes()
    if os.environ.get(SCRIPT) == "on":
        from scripted import script

        changes["pipeline.executors.local"] = lambda local: script(local, held)
    if file := os.environ.get(EVENT_LOOPS):
        from event_loops import watch_into  # beside this file, where Python has found this one

        watch_into(Path(file))
    if other_end := getattr(sys.modules.get("template"), "workers", None):
        from forked import Requests, from_template

        popen = from_template(Requests(other_end))
        changes["jobs.workers.launch"] = lambda launch: start_with(launch, popen)
    if parameter := os.environ.get(DECLARED):
        changes["pipeline.parameters"] = lambda module: declare(parameter, module)
    for name, change in changes.items():
        if name not in known:
            sys.meta_path.insert(0, WhenImported(name, change))


begin()
