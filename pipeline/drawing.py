"""A job that `Engine.start` draws in a thread of its own, for its readers."""

from __future__ import annotations

from pipeline.event_stream import EventStream
from pipeline.events import Event
from pipeline.request import Job
from pipeline.run import Cancel


class Drawing(EventStream):
    """The events of one job, and `stop`. Made by `Engine.start`."""

    def __init__(self, job: Job) -> None:
        super().__init__(Event(job, warnings=job.warnings))
        self.job = job
        self.cancel = Cancel()

    def stop(self) -> None:
        """Ends the drawing within one step; returns at once. Its last preview stays in the last event."""
        self.cancel.set()
