"""A drawing as server-sent events: which previews are partial images, and what is sent while there is none.

Reads the drawing as everyone does: it skips to the newest where the client is slow, and holds nothing up.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from api.openai.answer import CompletedImage, PartialImage, completed_image, partial_image
from api.openai.errors import Refusal, refusal_after
from api.openai.request import ImageRequest
from pipeline.events import Event

if TYPE_CHECKING:
    from jobs.lifecycle.subscription import Subscription

SILENCE = 5.0
"""Seconds without an event after which a comment is sent: proxies cut a stream that is silent for long (nginx
after 60 s). A comment is nothing to the clients."""


class DrawingStream(EventSourceResponse):
    """The response; a drawing whose client has gone is ended with it."""

    def __init__(self, drawing: Subscription, asked: ImageRequest, on_end: Callable[[], None]) -> None:
        """on_end: called when the stream has ended, whoever ended it."""
        super().__init__(
            stream(drawing, asked),
            headers={"X-Request-Id": drawing.job.id},
        )
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


async def stream(
    drawing: Subscription, asked: ImageRequest, silence: float = SILENCE
) -> AsyncIterator[bytes]:
    """The events as bytes: partial images, then for each picture its completed one, or an error at last.

    Args:
        silence: seconds without an event after which a comment is sent.
    """
    partials, completed = Partials(asked.partial_images or 0), 0
    yield format_sse_event(comment=f"job {drawing.job.id}")
    sent = time.monotonic()
    async for event in drawing.events(repeat_after=silence):
        for index in range(completed, len(event.images)):
            # In a thread: a large picture takes a second to become a webp.
            yield _event(await asyncio.to_thread(completed_image, event, index, asked))
            sent = time.monotonic()
        completed = len(event.images)
        if (shown := partials.of(event)) is not None:
            yield _event(partial_image(event, *shown, asked))
            sent = time.monotonic()
        if event.last:
            if (refusal := refusal_after(event)) is not None:
                yield last_of(refusal)
        elif time.monotonic() - sent >= silence:
            yield format_sse_event(comment=_standing(event))
            sent = time.monotonic()


def last_of(refusal: Refusal) -> bytes:
    """The event that ends a stream which comes to no picture."""
    return format_sse_event(event="error", data_str=refusal.data())


class Partials:
    """Chooses the previews to send. The first there is, at once; then, of `wanted`, number i with the first
    preview at or past i / wanted of the steps that wasn't sent. Where previews come slower, fewer."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._image, self._sent = 0, 0
        self._newest: bytes | None = None

    def of(self, event: Event) -> tuple[bytes, int, int] | None:
        """A preview that is due with this event, which image it is of, and which of its partial images, both
        from 0; None where none is due."""
        image = len(event.images)
        if event.last or len(event.previews) <= image:
            return None
        if image != self._image:
            self._image, self._sent = image, 0
        preview = event.previews[image]
        if preview is self._newest or self._sent == self._wanted:
            return None
        if self._sent and event.step * self._wanted < self._sent * event.steps:
            return None
        self._newest, number = preview, self._sent
        self._sent += 1
        return preview, image, number


def _event(picture: PartialImage | CompletedImage) -> bytes:
    # For whoever reads the stream by eye: what it is first, the picture last.
    rest = picture.model_dump(exclude={"type", "b64_json"})
    data = {"type": picture.type, **rest, "b64_json": picture.b64_json}
    return format_sse_event(event=picture.type, data_str=json.dumps(data))


def _standing(event: Event) -> str:
    """The comment that fills a silence, for whoever reads the stream by eye."""
    told: dict[str, Any] = {"queued": f", {event.position} ahead", "denoising": f", step {event.step}"}
    return f"{event.phase}{told.get(event.phase, '')}"
