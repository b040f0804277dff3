"""Models that must be fetched before they can be drawn with: in threads of their own, so that a download
keeps no device from drawing, and one for all who wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from pipeline.devices.threads import start_thread
from pipeline.drawing import Drawing
from pipeline.errors import Busy, StepwiseError, Stopped
from pipeline.library_errors import explained

if TYPE_CHECKING:
    from pipeline.engine import Engine

log = logging.getLogger("stepwise")


class Downloads:
    """Fetches what waiting jobs need. Safe to use from any thread."""

    def __init__(
        self,
        engine: Engine,
        waiting: Callable[[str], list[Drawing]],
        fetched: Callable[[], None],
        failed: Callable[[Collection[str], StepwiseError], None],
    ) -> None:
        """
        Args:
            waiting: what the readers of those see that wait for a model. fetched: told that a model has come,
                or that nobody waits for it any more. failed: told why these jobs' model can't be fetched.
        """
        self._engine = engine
        self._waiting, self._fetched, self._failed = waiting, fetched, failed
        self._lock = threading.Lock()
        self._coming: set[str] = set()
        self._closed = False

    def holds(self, model: str) -> bool:
        """Whether jobs of this model have to wait for it still."""
        return model in self._coming

    def want(self, model: str) -> None:
        """Fetches this model, if it isn't here or coming already."""
        with self._lock:
            if self._closed or model in self._coming or self._engine.fetched(model):
                return
            self._coming.add(model)
        try:
            start_thread(f"download {model}", self._fetch, model)
        except Busy as error:  # whoever is drawn with it fetches it, or says why that can't be
            log.warning("%s isn't fetched ahead: %s", model, error)
            with self._lock:
                self._coming.discard(model)

    def close(self) -> None:
        """Nothing more is fetched, and what is coming is given up."""
        self._closed = True

    def _wanted_by(self, model: str) -> list[Drawing]:
        return [] if self._closed else self._waiting(model)

    def _fetch(self, model: str) -> None:
        spec = self._engine.catalogue[model]
        failed: StepwiseError | None = None
        try:
            with explained(spec.name, spec.license.url):
                self._engine.fetch(model, _Everyone(lambda: self._wanted_by(model)))
        except Stopped:
            pass
        except StepwiseError as error:
            failed = error
        finally:
            with self._lock:
                self._coming.discard(model)
                # Whoever comes from here on begins a new download, and is told of that one.
                waited = [box.job.id for box in self._wanted_by(model)]
        try:
            if failed is not None:
                self._failed(waited, failed)
            elif self._wanted_by(model):  # somebody came while it was being given up
                self.want(model)
        except StepwiseError as error:  # the disk: each is told when its turn comes
            log.error("That %s can't be fetched can't be written down: %s", model, error)
        finally:
            self._fetched()


class _Everyone:
    """All who wait for one model: told how far it is; the download ends when none is left."""

    def __init__(self, waiting: Callable[[], list[Drawing]]) -> None:
        self._waiting = waiting

    def check(self) -> None:
        if not self._waiting():
            raise Stopped

    def update(self, **changes: Any) -> None:
        for box in self._waiting():
            box.update(**changes)
