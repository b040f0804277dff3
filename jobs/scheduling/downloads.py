"""Models that must be fetched before they can be drawn with: in threads of their own, so that a download
keeps no device from drawing, and one for all who wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from jobs.lifecycle.tracked_job import TrackedJob
from jobs.scheduling.preloads import Preloads
from pipeline.devices.threads import start_thread
from pipeline.errors import Busy, StepwiseError, Stopped
from pipeline.library_errors import explained
from pipeline.run import Cancel, Progress

if TYPE_CHECKING:
    from pipeline.engine import Engine

log = logging.getLogger("stepwise")


class Downloads:
    """Fetches what waiting jobs and preloads need. Safe to use from any thread."""

    def __init__(
        self,
        engine: Engine,
        preloads: Preloads,
        waiting: Callable[[str], list[TrackedJob]],
        on_fetched: Callable[[], None],
        on_failed: Callable[[Collection[str], StepwiseError], None],
    ) -> None:
        """
        Args:
            waiting: gives the jobs that wait for a model. on_fetched: is told that a model has come, or that
                nobody waits for it any more. on_failed: is told of which jobs the model can't be fetched.
        """
        self._engine, self._preloads = engine, preloads
        self._waiting, self._on_fetched, self._on_failed = waiting, on_fetched, on_failed
        self._lock = threading.Lock()
        self._coming: set[str] = set()
        self._closed = False

    def is_coming(self, model: str) -> bool:
        """Whether jobs of this model have to wait for its download."""
        return model in self._coming

    def ensure(self, model: str) -> None:
        """Fetches this model in the background, if it isn't here or coming already."""
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
        """Fetches nothing more, and gives up what is coming."""
        self._closed = True

    def _wanted_by(self, model: str) -> list[TrackedJob]:
        return [] if self._closed else self._waiting(model)

    def _is_wanted(self, model: str) -> bool:
        return not self._closed and (bool(self._waiting(model)) or self._preloads.is_coming(model))

    def _fetch(self, model: str) -> None:
        spec = self._engine.catalogue[model]
        failed: StepwiseError | None = None
        try:
            with explained(spec.name, spec.license.url):
                self._engine.fetch(model, _ForAll(self, model))
            self._preloads.update(model, "queued", 0, 0)
        except Stopped:
            pass
        except StepwiseError as error:
            failed = error
        finally:
            with self._lock:
                self._coming.discard(model)
                # Whoever comes from here on begins a new download, and is told of that one.
                waited = [tracked.id for tracked in self._wanted_by(model)]
        try:
            if failed is not None:
                self._preloads.failed(model, failed)
                self._on_failed(waited, failed)
            elif self._is_wanted(model):  # somebody came while it was being given up
                self.ensure(model)
        except StepwiseError as error:  # the disk: each is told when its turn comes
            log.error("That %s can't be fetched can't be written down: %s", model, error)
        finally:
            self._on_fetched()


class _ForAll(Progress):
    """A download for all who wait for one model: each is told how far it is, and it ends when none is
    left."""

    def __init__(self, downloads: Downloads, model: str) -> None:
        super().__init__(Cancel())
        self._downloads, self._model = downloads, model

    def raise_if_cancelled(self) -> None:
        if not self._downloads._is_wanted(self._model):
            raise Stopped

    def update(self, **changes: Any) -> None:
        self._downloads._preloads.update(self._model, **changes)
        for tracked in self._downloads._wanted_by(self._model):
            tracked.update(**changes)
