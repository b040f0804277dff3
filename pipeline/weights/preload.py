"""Models that are made ready before anyone asks for them, one after the other in the background, and how far
each is. How a model is fetched and loaded, the engine knows; whoever lists the models shows what is coming.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.line import Line
from pipeline.devices.threads import start_thread
from pipeline.errors import Busy, StepwiseError, Stopped

log = logging.getLogger("stepwise")

AGAIN = 1.0
"""Seconds after which a preload that finds a device's line full asks for its place again."""


@dataclass(frozen=True)
class Coming:
    """How a preload stands. phase: `queued` until it begins, and while drawings have the device it loads
    onto. done, total: bytes while downloading, parts while loading. error: why it failed, and what to do."""

    phase: Literal["queued", "downloading", "loading", "failed"] = "queued"
    done: int = 0
    total: int = 0
    error: str | None = None


class Preloads:
    """What is coming, by model. Safe to use from any thread."""

    def __init__(self) -> None:
        self._coming: dict[str, Coming] = {}
        self._elsewhere: list[Callable[[], Mapping[str, dict[str, Any]]]] = []
        self._threads: list[threading.Thread] = []
        self.closed = False

    def start(
        self, specs: Sequence[ModelSpec], make_ready: Callable[[ModelSpec, Preload], None]
    ) -> threading.Thread:
        """Makes these models ready in this order, in a thread that is returned. One that fails says why in
        `of`, and keeps no other from its turn.

        Args:
            make_ready: fetches and loads a model, reporting to the Preload; raises StepwiseError.

        Raises:
            Busy: no thread can be started; `of` says so of each.
        """
        self._coming.update({spec.id: Coming() for spec in specs})

        def run() -> None:
            for spec in specs:
                try:
                    make_ready(spec, Preload(self, spec))
                    self.arrived(spec.id)
                except Stopped:
                    return
                except StepwiseError as error:
                    log.warning("%s can't be made ready: %s", spec.name, error, exc_info=error.__cause__)
                    self._coming[spec.id] = Coming("failed", error=str(error))

        try:
            thread = start_thread("preload", run)
        except Busy as error:
            self._coming.update({spec.id: Coming("failed", error=str(error)) for spec in specs})
            raise
        self._threads.append(thread)
        return thread

    def close(self, seconds: float) -> None:
        """Gives up what is coming, and waits for it to come out of what it does: so many seconds at most."""
        self.closed = True
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def of(self, model: str) -> dict[str, Any] | None:
        """How this model's preload stands, as plain data; None where nothing is coming, or it has come."""
        coming = self._coming.get(model)
        if coming is not None:
            return asdict(coming)
        return next((found[model] for ask in self._elsewhere if model in (found := ask())), None)

    def all(self) -> dict[str, dict[str, Any]]:
        """What is coming in this process, as of `of`."""
        return {model: asdict(coming) for model, coming in self._coming.copy().items()}

    def also(self, ask: Callable[[], Mapping[str, dict[str, Any]]]) -> None:
        """Has `of` look at what is coming in another process, too; ask: gives its `all`."""
        self._elsewhere.append(ask)

    def arrived(self, model: str) -> None:
        """The model is loaded, by its preload or by a drawing."""
        self._coming.pop(model, None)

    def update(self, model: str, **changes: Any) -> None:
        """Notes how far it is."""
        self._coming[model] = replace(self._coming.get(model, Coming()), **changes)


class Preload:
    """One model's preload: what stands in the line for it, and what it reports to."""

    eta: float | None = None

    def __init__(self, among: Preloads, spec: ModelSpec) -> None:
        self._among, self._model = among, spec.id
        self.preloads = spec.name

    def check(self) -> None:
        """Raises Stopped once the process ends; nobody else stops a preload."""
        if self._among.closed:
            raise Stopped

    def update(self, **changes: Any) -> None:
        """As of a drawing: phase, done and total, or its place in the line."""
        if changes.pop("position", 0):
            changes = {"phase": "queued"}
        self._among.update(self._model, **changes)

    @contextlib.contextmanager
    def turn(self, line: Line) -> Iterator[None]:
        """Its turn at a device, however many drawings wait there."""
        while True:
            try:
                line.join(self)
                break
            except Busy:
                self.check()
                self.update(phase="queued")
                time.sleep(AGAIN)
        with line.turn(self):
            yield
