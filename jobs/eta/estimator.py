"""How long drawings take on each device, learned from the events of those that were drawn: what an ETA is
made of before a drawing's own steps say it. What follows for other sizes, and the file, are cost_model.py's.

No clock here: an event has its own time (`Event.seconds`), so it matters little when it is looked at.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from jobs.eta.cost_model import EACH, Costs, DeviceCosts, Part, add, at_size, read_costs, write_costs
from pipeline.catalog.catalogue import Catalogue
from pipeline.events import Event
from pipeline.families import FAMILIES, Family
from pipeline.request import Job
from pipeline.weights.patches import patches_of
from pipeline.weights.profile import drawn_as, profile_of

log = logging.getLogger("stepwise")


class Estimator:
    """Estimates how long drawings take on each device, whichever models it draws. Safe to use from any
    thread."""

    def __init__(self, catalogue: Catalogue, device: Callable[[str], str], path: Path | None = None) -> None:
        """
        Args:
            device: names what draws a model of the catalogue (`Engine.device`) where the drawing itself
                doesn't say (`Event.device`): what was learned on another one says nothing of it.
            path: of the file where it is kept, which devices may share; None: it isn't kept. A damaged one is
                ignored, with a warning.
        """
        self._specs = {spec.id: spec for spec in catalogue}
        self._devices = {model: device(model) for model in self._specs}
        self._path = path
        self._known = {} if path is None else read_costs(path)
        self._costs: dict[str, DeviceCosts] = {}
        self._lock = threading.Lock()

    def observe(self, job: Job, loaded: bool) -> DrawingObserver:
        """Learns from a drawing whose events are shown to what this returns.

        Args:
            loaded: whether its model was ready when its turn came.
        """
        return DrawingObserver(self, job, loaded)

    def seconds(self, job: Job, loaded: bool) -> float | None:
        """What the job will take from its turn to its end; None while no step of its model was seen.

        Args:
            loaded: whether its model will be ready.
        """
        with self._lock:
            image = self._image(job, "")
            if image is None:
                return None
            return self._models(job, "")[self._kind(job)].seconds_to_start(loaded) + job.images * sum(image)

    def remaining(self, event: Event, loaded: bool = True, age: float = 0.0) -> float | None:
        """Seconds that are left of a job whose turn has come: the drawing's own estimate while there is one,
        which is from this very job's steps, else what is known of the device. None: neither is.

        Args:
            event: the newest. age: seconds since it came.
            loaded: whether the model was ready when the turn came.
        """
        left = self._left(event, loaded)
        return None if left is None else max(0.0, left - age)

    def save(self) -> None:
        """Keeps what was learned. A file that can't be written is a warning in the log: nothing is lost but
        the first estimates after a restart."""
        if self._path is None:
            return
        with self._lock:
            try:
                write_costs(self._path, self._costs)
            except OSError as error:
                log.warning("How long drawings take can't be kept in %s: %s", self._path, error.strerror)

    def _left(self, event: Event, loaded: bool) -> float | None:
        job = event.job
        if event.last:
            return 0.0
        if event.phase == "downloading":
            return None
        if event.phase == "denoising" and event.step and event.eta is not None:
            return event.eta
        with self._lock:
            image = self._image(job, event.device)
            if image is None:
                return event.eta
            steps, decode = image
            later = (job.images - event.image) * (steps + decode)
            if event.phase == "denoising":
                return steps * (1 - event.step / job.steps) + decode + later
            if event.phase == "decoding":
                return (decode if len(event.images) < event.image else 0.0) + later
            costs = self._models(job, event.device)[self._kind(job)]
            start = costs.seconds_to_start(loaded and event.phase != "loading")
            return max(0.0, start - event.seconds) + (job.images - len(event.images)) * (steps + decode)

    def _image(self, job: Job, device: str) -> tuple[float, float] | None:
        """Return the seconds of one image's steps, and of its decoding, or None while no step was seen.

        Args:
            device: as of `Event.device`.
        """
        if job.model not in self._specs:
            return None
        costs, pixels = self._models(job, device).get(self._kind(job)), job.width * job.height
        if costs is None:
            return None
        spec, family = self._specs[job.model], self._family(job)
        forwards = family.forwards(spec, True) / family.forwards(spec, False)
        step = costs.step(pixels, family.guided(job), forwards)
        if step is None:
            return None
        load = self._device_costs(job, device).load
        return load * job.steps * step, load * (at_size(costs.decode, pixels) or 0.0)

    def _device_costs(self, job: Job, device: str) -> DeviceCosts:
        """Return the costs on this device, or, where it isn't named, on that which draws the model here."""
        name = device or self._devices[job.model]
        if name not in self._costs:
            self._costs[name] = self._known.get(name) or DeviceCosts()
        return self._costs[name]

    def _models(self, job: Job, device: str) -> dict[str, Costs]:
        return self._device_costs(job, device).models

    def _kind(self, job: Job) -> str:
        """Return the key of the job's model, profile and patches among a device's costs."""
        return drawn_as(job.model, profile_of(self._specs[job.model]), patches_of(job))

    def _family(self, job: Job) -> Family:
        return FAMILIES[self._specs[job.model].family]

    # What an observer saw.

    def _learn_start(self, job: Job, device: str, seconds: float, loading: float | None) -> None:
        """Learns how long a drawing took to begin.

        Args:
            device: as of `Event.device`.
            seconds: from its turn to its first step. loading: of these, where the model had to be loaded.
        """
        if job.model not in self._specs:
            return
        with self._lock:
            costs = self._models(job, device).setdefault(self._kind(job), Costs())
            if loading is None:
                add(costs.ready, seconds)
            else:
                add(costs.loading, loading)
                add(costs.cold, seconds - loading)

    def _learn_image(
        self, job: Job, device: str, number: int, step: float | None, decode: float | None
    ) -> None:
        """Learns how long one image took.

        Args:
            device: as of `Event.device`.
            number: how many of the job's images were learned before.
            step, decode: seconds of a step, and of its decoding; None for what wasn't seen.
        """
        if job.model not in self._specs:
            return
        with self._lock:
            on_device = self._device_costs(job, device)
            costs = on_device.models.setdefault(self._kind(job), Costs())
            parts = []
            if step is not None:
                parts.append(
                    Part(costs.guided if self._family(job).guided(job) else costs.plain, step, job.steps)
                )
            if decode is not None:
                parts.append(Part(costs.decode, decode))
            if number < EACH:
                on_device.compare(job.width * job.height, parts)
            on_device.learn(job.width * job.height, parts)


class DrawingObserver:
    """Follows one drawing's events, and tells an estimator what its parts took. Used by one thread at a
    time."""

    def __init__(self, estimator: Estimator, job: Job, loaded: bool) -> None:
        self._estimator, self._job, self._loaded = estimator, job, loaded
        self._device = ""
        self._before: Event | None = None
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._started = False
        self._first: Event | None = None
        self._newest: Event | None = None
        self._step: float | None = None
        self._images = 0
        self._decoding: Event | None = None

    def see(self, event: Event) -> None:
        """Takes the next event; some may have been missed."""
        self._device = event.device or self._device
        if self._before is not None:
            self._spent[self._before.phase] += event.seconds - self._before.seconds
        self._before = event
        if event.phase == "denoising" and not self._started:
            self._started = True
            self._see_start(event)
        self._see_steps(event)
        self._see_decoding(event)
        if event.last:
            self._learn_image(None)

    def _see_start(self, event: Event) -> None:
        if event.step or event.image > 1:
            return  # the beginning was missed
        seconds, loading = event.seconds - self._spent["downloading"], self._spent["loading"]
        if self._loaded or not loading:
            self._estimator._learn_start(self._job, self._device, seconds, None)
        else:
            self._estimator._learn_start(self._job, self._device, seconds, loading)

    def _see_steps(self, event: Event) -> None:
        """Notes from which event to which the steps of one image went."""
        if event.phase == "denoising" and self._is_new(event):
            self._end_steps()
            self._learn_image(None)  # the one before, whose decoding was missed
            self._first = self._newest = event
        elif self._first is not None and self._newest is not None:
            decoded = len(event.images) > len(self._first.images) and event.provider is None
            if event.image == self._first.image and event.step > self._newest.step and not decoded:
                self._newest = event
            if event.phase != "denoising" or event.step == event.steps:
                self._end_steps()

    def _is_new(self, event: Event) -> bool:
        """Whether this event begins the steps of an image, be it once more (where memory had run out)."""
        if self._first is None or self._newest is None:
            return event.step < event.steps
        return event.image != self._first.image or event.step < self._newest.step

    def _end_steps(self) -> None:
        if self._first is not None and self._newest is not None:
            steps = self._newest.step - self._first.step
            if steps > 0:
                self._step = (self._newest.seconds - self._first.seconds) / steps
        self._first = self._newest = None

    def _see_decoding(self, event: Event) -> None:
        began = self._decoding
        if began is not None and len(event.images) == began.image:
            if event.image == began.image or not event.step:
                self._learn_image(event.seconds - began.seconds)
            self._decoding = None
        elif event.phase != "decoding" or (began is not None and event.image != began.image):
            self._decoding = None
        if self._decoding is None and event.phase == "decoding" and len(event.images) < event.image:
            self._decoding = event

    def _learn_image(self, decode: float | None) -> None:
        if self._step is None and decode is None:
            return
        self._estimator._learn_image(self._job, self._device, self._images, self._step, decode)
        self._step = None
        self._images += 1
