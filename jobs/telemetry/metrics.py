"""What Prometheus is told of the queue: how many, how long, and why not. Labels are models of the catalogue,
lines and kinds; never a prompt, a person or a job's id.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.store.models import Record
from pipeline import errors
from pipeline.errors import StepwiseError
from pipeline.events import LAST_PHASES, Event
from pipeline.executors.executor import Executor

SHORT = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper bounds of a step's seconds: a small model on a CPU to a large one there."""
LONG = (0.1, 0.3, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds of a drawing's and a wait's seconds."""
CODES = frozenset(
    kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StepwiseError)
) | {"late"}


class Metrics:
    """One queue's figures since it began. Safe to use from any thread; never raises for what it is told."""

    def __init__(self, models: Collection[str]) -> None:
        """models: of the catalogue, by id."""
        self._models = models
        self._registry = registry = CollectorRegistry()
        self._ended = Counter(
            "stepwise_jobs_ended", "Jobs that ended, by outcome.", ["model", "outcome"], registry=registry
        )
        self._wait = Histogram(
            "stepwise_wait_seconds",
            "Seconds from a job's start to its turn.",
            ["model"],
            registry=registry,
            buckets=LONG,
        )
        self._drawing = Histogram(
            "stepwise_drawing_seconds",
            "Seconds from a finished job's turn to its pictures.",
            ["model"],
            registry=registry,
            buckets=LONG,
        )
        self._step = Histogram(
            "stepwise_step_seconds",
            "Seconds of a denoising step.",
            ["model"],
            registry=registry,
            buckets=SHORT,
        )
        self._loads = Counter(
            "stepwise_model_changes",
            "Drawings whose model wasn't in memory when their turn came.",
            ["model"],
            registry=registry,
        )
        self._stops = Counter(
            "stepwise_stops", "Requests to stop a job, by its state.", ["state"], registry=registry
        )
        self._errors = Counter("stepwise_errors", "Jobs that failed, by code.", ["code"], registry=registry)
        self._refusals = Counter(
            "stepwise_refusals", "Requests that became no job, by reason.", ["reason"], registry=registry
        )
        self._lost = Counter(
            "stepwise_attempts_lost",
            "Attempts that ended with what drew them: a worker, or the whole server.",
            ["with"],
            registry=registry,
        )
        for model in models:  # a rate over a counter needs its zero
            for outcome in LAST_PHASES:
                self._ended.labels(model, outcome)
        for cause in ("worker", "server"):
            self._lost.labels(cause)

    def add_collector(self, collector: Collector) -> None:
        """Has `text` tell what this collects, too."""
        self._registry.register(collector)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def begun(self, record: Record, loaded: bool) -> None:
        """A job's turn has come. loaded: its model was ready, or is drawn elsewhere."""
        model = self._model(record.job.model)
        if record.attempt == 1 and record.started is not None:
            self._wait.labels(model).observe(max(0.0, record.started - record.created))
        if not loaded:
            self._loads.labels(model).inc()

    def steps(self, model: str) -> Steps:
        """Measures the steps of a drawing whose events are shown to what this returns."""
        return Steps(self._step.labels(self._model(model)))

    def ended(self, record: Record, last: Event) -> None:
        model = self._model(record.job.model)
        self._ended.labels(model, last.phase).inc()
        if last.phase == "finished":
            self._drawing.labels(model).observe(last.seconds)
        elif last.phase == "failed":
            self._errors.labels(last.code if last.code in CODES else "failed").inc()

    def stopped(self, running: bool) -> None:
        """Somebody asked for a job's end."""
        self._stops.labels("running" if running else "waiting").inc()

    def lost(self, cause: str) -> None:
        """An attempt ended with a worker, or a server."""
        self._lost.labels(cause).inc()

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason).inc()

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """Counts the block's errors by their code. Busy is counted by whoever knows what for."""
        try:
            yield
        except StepwiseError as error:
            if error.code != "busy":
                self.refused(error.code)
            raise

    def _model(self, model: str) -> str:
        """A model of the catalogue, or "other": an older server's jobs may have ones that are gone."""
        return model if model in self._models else "other"


class Steps:
    """One drawing's steps. Used by one thread."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._before: Event | None = None

    def see(self, event: Event) -> None:
        """The next event; where some were missed, each of their steps counts with the mean."""
        before, self._before = self._before, event
        if before is None or event.provider is not None or before.phase != "denoising":
            return
        steps = event.step - before.step
        if event.image == before.image and steps > 0:
            for _ in range(steps):
                self._histogram.observe((event.seconds - before.seconds) / steps)


class Now(Collector):
    """What is so when it is asked for, from memory alone."""

    def __init__(
        self,
        lines: Mapping[str, str],
        executors: Mapping[str, Sequence[Executor]],
        active: Callable[[], Iterable[tuple[Record, bool]]],
    ) -> None:
        """
        Args:
            lines: of each model of the catalogue, by id. active: gives the jobs that wait or run, and whether
                each is being drawn.
        """
        self._lines, self._executors = lines, executors
        self._active = active

    def collect(self) -> Iterator[Metric]:
        names = ["line", "model"]
        waiting = dict.fromkeys(((line, model) for model, line in self._lines.items()), 0)
        running = dict(waiting)
        for record, drawn in self._active():
            counted = running if drawn else waiting
            job = record.line, record.job.model
            counted[job] = counted.get(job, 0) + 1
        for name, words, counted in (
            ("stepwise_jobs_waiting", "Jobs in the queue.", waiting),
            ("stepwise_jobs_running", "Jobs being drawn.", running),
        ):
            gauge = GaugeMetricFamily(name, words, labels=names)
            for labels, number in counted.items():
                gauge.add_metric(labels, number)
            yield gauge
        devices = GaugeMetricFamily(
            "stepwise_executors_ready", "Of those that draw, how many do or could now.", labels=["line"]
        )
        restarts = CounterMetricFamily(
            "stepwise_worker_restarts", "Worker processes that took a dead one's place.", labels=["line"]
        )
        for line, several in self._executors.items():
            now = [(one, one.capabilities()) for one in several]
            devices.add_metric([line], sum(one.at_once for one, can in now if not can.reason))
            restarts.add_metric([line], sum(can.restarts for _, can in now))
        yield devices
        yield restarts
        allocated = GaugeMetricFamily(
            "stepwise_gpu_memory_allocated_bytes", "GPU memory that tensors take.", labels=["gpu"]
        )
        total = GaugeMetricFamily("stepwise_gpu_memory_total_bytes", "The GPU's memory.", labels=["gpu"])
        for gpu, one in enumerate(self._executors.get("cuda", ())):
            if (memory := one.gpu_memory()) is not None:
                allocated.add_metric([str(gpu)], memory[0])
                total.add_metric([str(gpu)], memory[1])
        yield allocated
        yield total
