"""Drawing on ZeroGPU, where a GPU is lent for each drawing and paid from the visitor's daily quota.

The only code that knows of ZeroGPU's library: one function is decorated, `_in_worker`. It runs in a process
forked from this one, with all models on its GPU, and draws there as any machine does; its events cross back,
and nothing else does. What it changes stays there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pipeline.catalog.spec import ModelSpec
from pipeline.devices.threads import start_thread
from pipeline.devices.zerogpu_sizes import GB, ROOM, GpuSize, bytes_of, models_to_hold, parts
from pipeline.errors import StepwiseError, Stopped, WorkerDied, ZeroGpuError
from pipeline.events import Event
from pipeline.executors.executor import Capabilities
from pipeline.executors.in_process import DrawnElsewhere
from pipeline.executors.service_errors import zerogpu_error
from pipeline.executors.turns import Turns
from pipeline.executors.zerogpu_seconds import GpuSeconds
from pipeline.library_errors import DEVICE_LOST, explained
from pipeline.request import Job
from pipeline.run import Cancel, Run

log = logging.getLogger("stepwise")

Draw = Callable[[Run, ModelSpec], None]
"""Draws in this process and in this thread, and raises what goes wrong."""

AT_ONCE = 4
"""Drawings that are with ZeroGPU at the same time; each gets a GPU and a worker of its own, or waits in
ZeroGPU's line. Bounds the processes, each of which is a copy of this one."""
HEARTBEAT = 0.2
"""Seconds: a worker says something this often also where there is no news, for `spaces`
(0.51) looks for a stop only when it does."""
_OWN_FIELDS = ("job", "position", "seconds", "device")
"""Of an event, what the parent's drawing knows better than the worker's."""


@dataclass(frozen=True)
class Started:
    """The worker's first word: it has its GPU. seconds: from the fork to here, 0 where it was used again."""

    seconds: float


class ZeroGpu(DrawnElsewhere):
    """ZeroGPU, as one of the engine's executors. Made once a process, in the main thread and before any CUDA
    is initialised: `spaces` makes that thread believe in a GPU, which exists in the workers only."""

    at_once = AT_ONCE

    def __init__(self, specs: Sequence[ModelSpec], draw: Draw, size: GpuSize) -> None:
        """
        Args:
            specs: the models that are drawn on lent GPUs.
            draw: what the worker draws with.
            size: of the GPU; named to `spaces`, which else chooses `xlarge` by itself where much is loaded.
        """
        import spaces
        from spaces.zero.client import get_duration_seconds

        spaces.disable_gradio_auto_wrap()
        super().__init__(specs, Turns(AT_ONCE))
        self.size: GpuSize = size
        self._draw = draw
        self._held: list[ModelSpec] | None = None
        self._refused: dict[str, str] = {}
        hour = timedelta(hours=1)
        self._factor = get_duration_seconds(hour, size) / hour.seconds
        self._seconds = GpuSeconds(size, 0, self._factor)
        self._process = os.getpid()
        self._forked: float | None = None
        os.register_at_fork(after_in_child=self._note_fork)
        self._on_gpu = spaces.GPU(duration=self._asked, size=size)(self._in_worker)

    # At the start.

    def load_at_start(self, specs: list[ModelSpec], load: Callable[[ModelSpec], Any]) -> None:
        """Loads the models that this size holds. No other is drawn from then on, nor what couldn't be loaded:
        a worker would load it on its visitor's time.

        Call it in the main thread and before the page is launched: then what is on "cuda" is made ready for
        the workers. Threads that `load` starts mustn't touch "cuda".

        Args:
            specs: the models that could be drawn here, best first.
            load: puts a model on "cuda" in this process, to stay there.
        """
        held: list[ModelSpec] = []
        while waiting := [spec for spec in self._choice(specs) if spec not in held]:
            spec = waiting[0]
            try:
                with explained(spec.name, spec.license.url):
                    load(spec)
                held.append(spec)
            except StepwiseError as error:  # its room is for another
                log.warning("%s can't be loaded: %s", spec.name, error)
                cause = str(error).rstrip(".")
                self._refused[spec.id] = (
                    f"It couldn't be loaded when this Space started: {cause}. Then restart it."
                )
        for spec in specs:
            if spec not in held:
                self._refused.setdefault(spec.id, self._no_room(spec, held))
        self._held = held
        self._seconds = GpuSeconds(self.size, bytes_of(held), self._factor)

    def _choice(self, specs: list[ModelSpec]) -> list[ModelSpec]:
        return models_to_hold([spec for spec in specs if spec.id not in self._refused], self.size)

    def refusal(self, spec: ModelSpec) -> str:
        """Why this model can't be drawn here, besides what `requirements.needs` says; empty where it can."""
        if self._held is None or spec in self._held:
            return ""
        return self._refused.get(spec.id, "It wasn't loaded when this Space started: restart the Space.")

    def _no_room(self, spec: ModelSpec, held: list[ModelSpec]) -> str:
        beside = " and ".join(other.name for other in held) or "nothing"
        remedy = (
            "STEPWISE_ZEROGPU_SIZE=xlarge holds more, at twice the quota; or put it first in models.yaml."
            if self.size == "large"
            else "Put it first in models.yaml."
        )
        return (
            f"Its weights ({sum(parts(spec).values()) / GB:.1f} GB) don't fit beside {beside} into the "
            f"{ROOM[self.size] / GB:.1f} GB that ZeroGPU's size {self.size} has for weights. {remedy}"
        )

    # In this process.

    def capabilities(self) -> Capabilities:
        return Capabilities(tuple(self._specs), tuple(spec.id for spec in self._held or ()))

    def _have_drawn(self, run: Run, spec: ModelSpec) -> None:
        """Has the job drawn by a worker, whose last event is the run's too: a failure keeps its words. In the
        context of whoever asked for the picture: there `spaces` finds who pays. A stop ends it at once while
        it waits for a GPU, else when the worker has stopped drawing.

        Raises:
            QuotaExceeded, ZeroGpuError: ZeroGPU gave no GPU, or no result. Stopped.
        """
        news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = _Call(self._on_gpu(run.job, spec), news.put)
        last: Event | None = None
        with run.cancel.calling(lambda: news.put(Stopped())):
            while True:
                match news.get():
                    case Started(seconds):
                        if seconds:
                            self._seconds.started(seconds)
                    case Event() as event:
                        if event.last:
                            last = event  # told once the GPU is given back: the next job may use it again
                        else:
                            run.update(**event.changes(run.latest, _OWN_FIELDS))
                    case _Call():
                        break
                    case Stopped():
                        call.give_up()
                        if last is None:
                            raise Stopped
                        break
                    case Exception() as error:
                        if last is None:
                            needed = self._seconds.needed(run.job, spec)
                            raise zerogpu_error(error, spec.name, needed) from error
                        log.warning("ZeroGPU, after the drawing: %s", error)
                        break
        if last is None:
            raise ZeroGpuError(f"The GPU's process ended without a picture of {spec.name}. Try again.")
        if last.phase == "finished":
            self._seconds.drawn(run.job, spec, last.seconds)
        run.update(**last.changes(run.latest, _OWN_FIELDS))

    def _asked(self, job: Job, spec: ModelSpec) -> int:
        return self._seconds.asked(job, spec)

    # In the worker.

    def _note_fork(self) -> None:
        self._forked = time.monotonic()

    def _in_worker(self, job: Job, spec: ModelSpec) -> Iterator[Started | Event | None]:
        """Draws, and yields each event; None where there is no news. Closing it stops the drawing, and
        returns when its thread has ended: the next job is drawn in the same process."""
        forked, self._forked = self._forked, None
        yield Started(time.monotonic() - forked if forked else 0.0)
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        run = Run(job, events.put, Cancel())
        thread = threading.Thread(target=self._finish, args=(run, spec), name=f"drawing {job.short_id}")
        thread.start()
        try:
            last = False
            while not last:
                try:
                    event = _newest(events, HEARTBEAT)
                except queue.Empty:
                    yield None
                else:
                    last = event.last
                    yield event
        finally:
            run.cancel.set()
            thread.join()
            if run.latest.code == WorkerDied.code and os.getpid() != self._process:
                # This process, which the next drawing would be given too, can't use its GPU any more. What
                # was yielded has been sent: `spaces` (0.51) writes it to a pipe before it goes on.
                os._exit(DEVICE_LOST)

    def _finish(self, run: Run, spec: ModelSpec) -> None:
        """Draws to the last event, whatever happens: an exception would reach the parent as its class's
        name."""
        with run.concluded(spec.name, spec.license.url):
            self._draw(run, spec)


def _newest(events: queue.SimpleQueue[Event], seconds: float) -> Event:
    """The newest event, for which it waits so long.

    Raises:
        queue.Empty: there was none.
    """
    event = events.get(timeout=seconds)
    while not events.empty():
        event = events.get()
    return event


class _Call:
    """A call of the decorated function, in a thread of its own: waiting for a GPU can't be interrupted, while
    a stop mustn't wait for one."""

    def __init__(self, steps: Any, put: Callable[[Any], None]) -> None:
        """
        Args:
            steps: the call, a generator that hasn't begun.
            put: takes what it yields, then itself; or its exception.
        """
        self._steps, self._put = steps, put
        self._given_up = threading.Event()
        self._begun = False
        # `spaces` finds Gradio's request, whose visitor pays, in the context.
        self._thread = start_thread("ZeroGPU", self._run, in_context=True)

    def give_up(self) -> None:
        """Stops the worker and waits for it to have stopped. Where there is none yet, nobody waits: a GPU
        that is lent after this is given back as soon as it comes."""
        self._given_up.set()
        if self._begun:
            self._thread.join()

    def _run(self) -> None:
        try:
            with contextlib.closing(self._steps) as steps:
                for step in steps:
                    self._begun = True
                    if self._given_up.is_set():
                        break
                    self._put(step)
            self._put(self)
        except Exception as error:
            self._put(error)
