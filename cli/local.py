"""This machine's engine as a source of pictures, with the same settings and models.yaml as the app."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pipeline.run
from settings import Settings


class Local:
    """The engine, in this process."""

    def __init__(self) -> None:
        """
        Raises:
            SettingError, CatalogueError.
        """
        # As app.py has them: threads of libgomp that spin would hold up the bar.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        settings = Settings.read()
        gc.disable()  # while libraries are imported there is nothing to collect
        try:
            self._engine = settings.engine()
            gc.freeze()
        finally:
            gc.enable()

    def models(self) -> list[dict[str, Any]]:
        return self._engine.models()

    def start(self, values: Mapping[str, Any]) -> LocalDrawing:
        """
        Raises:
            InvalidRequest, ModelUnavailable.
        """
        return LocalDrawing(self._engine.start(self._engine.check(values)))


class LocalDrawing:
    """A drawing of this process."""

    def __init__(self, drawing: pipeline.run.Drawing) -> None:
        self._drawing = drawing

    def events(self) -> Iterator[tuple[dict[str, Any], tuple[bytes, ...]]]:
        for event in self._drawing.events():
            yield event.info(), event.images if event.last else ()

    def stop(self) -> None:
        self._drawing.stop()
