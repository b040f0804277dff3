"""Where pictures come from: this machine's engine or another Stepwise, told apart here and nowhere else.

Both give the API's own `info` dicts and finished PNGs; what the command line reads of them is checked here,
for a server may be of another version or no Stepwise at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pydantic import BaseModel, Field

from pipeline.events import LAST_PHASES


class Progress(BaseModel):
    """What the command line reads of an `info`; see pipeline.events.Event."""

    phase: str
    step: int = 0
    steps: int = 0
    image: int = 1
    images: int = Field(1, ge=1)
    position: int = 0
    done: int = 0
    total: int = 0
    eta: float | None = None
    seconds: float = 0
    prompt: str = ""
    seed: int = 0
    warnings: list[str] = []
    error: str | None = None

    @property
    def last(self) -> bool:
        return self.phase in LAST_PHASES


class Row(BaseModel):
    """What the command line reads of an entry of `/models`.

    defaults: what the model draws with where nothing else is asked, by parameter. Sizes in pixels.
    """

    id: str
    name: str
    default: bool
    available: bool
    reason: str | None
    defaults: dict[str, float]


class Drawing(Protocol):
    """A job that was started."""

    def events(self) -> Iterator[tuple[dict[str, Any], tuple[bytes, ...]]]:
        """(info, PNGs) from now on, to the last, which alone has PNGs: those finished. May be asked again.

        Raises:
            StepwiseError.
        """

    def stop(self) -> None:
        """Ends it within one step; `events` then comes to its last. Never raises."""


class Source(Protocol):
    """One engine, here or elsewhere."""

    def models(self) -> list[dict[str, Any]]:
        """Every model, as the API's `/models` gives it. Raises StepwiseError."""

    def start(self, values: Mapping[str, Any]) -> Drawing:
        """Starts to draw these parameters. Raises StepwiseError, now or from the drawing's events."""


def source(server: str | None) -> Source:
    """This machine's engine, or the one at `server`: an address, or a Space's owner/name.

    Raises:
        StepwiseError: settings or models.yaml can't be used; the server can't be reached or isn't one.
    """
    # Imported here: one brings torch, the other gradio_client.
    if server is None:
        from cli.local import Local

        return Local()
    from cli.remote import Remote

    return Remote(server)
