"""Models are made ready at the start: in order, in the background, seen by everyone, and in nobody's way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.data_dir.folder import DataFolder
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.workers.executors import executors
from pipeline.devices.hardware import Wanted
from pipeline.engine import Engine
from pipeline.weights.residency import Residency
from tests.jobs.queueing import ANN, BEN, until
from tests.support.coming_models import REQUEST, WEIGHTS, engine_with_three, hub_with_two
from tests.support.services.hub import FakeHub
from tests.support.tiny import catalogue, entry, hold


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with hub_with_two(tiny_folder, tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture
def engine(hub: FakeHub, tiny_folder: Path, tmp_path: Path) -> Engine:
    return engine_with_three(tiny_folder, tmp_path)


Preload = Callable[..., Queue]


@pytest.fixture
def preload(tmp_path: Path) -> Iterator[Preload]:
    """Makes a queue in front of an engine, which makes these models ready."""
    with contextlib.ExitStack() as made:

        def begin(engine: Engine, *models: str) -> Queue:
            queue = Queue(engine, DataFolder(tmp_path / "data"), executors(engine), Limits(), models)
            made.callback(queue.close)
            return queue

        yield begin


def coming(queue: Queue) -> dict[str, Any]:
    return {model["id"]: model["coming"] for model in queue.models()}


def until_it_is(queue: Queue, model: str, **expected: Any) -> dict[str, Any]:
    """What is coming of this model, once it is as expected."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        at = coming(queue)[model]
        if at and all(at[name] == value for name, value in expected.items()):
            return at
        time.sleep(0.01)
    raise AssertionError(f"{model} never was {expected}: {coming(queue)[model]}")


def test_models_are_fetched_and_loaded_in_order_and_seen_doing_so(
    engine: Engine, hub: FakeHub, preload: Preload, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    loading = hold(monkeypatch, Residency, "_place", call=3)
    queue = preload(engine, "one", "two")
    whole = sum(path.stat().st_size for path in tiny_folder.rglob("*") if path.is_file())
    at = until_it_is(queue, "one", phase="downloading", total=whole)
    assert 0 <= at["done"] < whole
    assert coming(queue)["here"] is None
    assert coming(queue)["two"] is not None
    hub.slow.set()
    loading.wait()
    assert until_it_is(queue, "one", phase="loading") == {
        "phase": "loading", "done": 2, "total": 5, "error": None,
    }  # fmt: skip
    assert coming(queue)["two"]["phase"] != "loading"
    loading.open()
    until(lambda: coming(queue) == {"one": None, "two": None, "here": None})
    for model in ("one", "two"):
        events = list(queue.start(engine.check(REQUEST | {"model": model}), ANN).events())
        assert events[-1].phase == "finished"
        assert not {"downloading", "loading"} & {event.phase for event in events}


def test_a_preload_is_given_up_when_the_server_ends(
    engine: Engine, preload: Preload, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = hold(monkeypatch, Residency, "_place", call=2)
    queue = preload(engine, "here", "one")
    loading.wait()
    ending = threading.Thread(target=queue.close)
    ending.start()
    ending.join(0.2)
    loading.open()
    ending.join(60)
    assert not ending.is_alive()
    assert loading.calls < 5  # the parts of one model
    assert coming(queue)["one"]["phase"] != "loading"


def test_a_preload_that_downloads_keeps_nobody_waiting_even_on_its_own_device(
    engine: Engine, hub: FakeHub, preload: Preload
) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    queue = preload(engine, "one")
    until_it_is(queue, "one", phase="downloading")
    events = list(queue.start(engine.check(REQUEST | {"model": "here"}), ANN, "detached").events())
    assert events[-1].phase == "finished"
    assert not any(event.position for event in events)
    hub.slow.set()
    until(lambda: coming(queue)["one"] is None)


def test_a_preload_that_loads_is_said_to_be_ahead(
    engine: Engine, preload: Preload, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = hold(monkeypatch, Residency, "_place")
    queue = preload(engine, "one")
    loading.wait()
    jobs = [queue.start(engine.check(REQUEST | {"model": "here"}), who, "detached") for who in (ANN, BEN)]
    for ahead, job in enumerate(jobs, 1):
        event = next(event for event in job.events() if event.position == ahead)
        assert event.preload == "One"
        assert event.info()["preload"] == "One"
    loading.open()
    event = next(event for event in jobs[1].events() if event.position <= 1 or event.phase != "queued")
    assert "preload" not in event.info()
    assert [job.result().phase for job in jobs] == ["finished", "finished"]
    until(lambda: coming(queue)["one"] is None)


def test_jobs_go_before_the_models_that_nobody_has_asked_for_yet(
    engine: Engine, preload: Preload, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = hold(monkeypatch, Residency, "_place")
    queue = preload(engine, "here", "one")
    loading.wait()
    job = queue.start(engine.check(REQUEST | {"model": "here"}), ANN, "detached")
    until(lambda: job.latest.position == 1)
    until_it_is(queue, "one", phase="queued")
    loading.open()
    assert job.result().phase == "finished"
    until(lambda: coming(queue) == {"one": None, "two": None, "here": None})


def test_whoever_asks_for_a_model_that_is_coming_sees_the_same_download(
    engine: Engine, hub: FakeHub, preload: Preload
) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    queue = preload(engine, "one")
    at = until_it_is(queue, "one", phase="downloading")
    job = queue.start(engine.check(REQUEST | {"model": "one"}), ANN, "detached")
    event = next(event for event in job.events() if event.phase == "downloading" and event.total)
    assert event.total == at["total"] or not at["total"]
    hub.slow.set()
    assert job.result().phase == "finished"
    fetched = [file for file, _ in hub.files]
    assert len(fetched) == len(set(fetched))


def test_one_that_fails_says_why_and_the_next_one_comes_and_a_later_drawing_mends_it(
    engine: Engine, hub: FakeHub, preload: Preload
) -> None:
    hub.repositories["me/one"].accepted = frozenset()
    queue = preload(engine, "one", "two")
    until(lambda: coming(queue)["two"] is None)
    at = until_it_is(queue, "one", phase="failed")
    assert "accept its licence at https://opensource.org/license/mit" in at["error"]
    hub.repositories["me/one"].accepted = frozenset({"hf_good"})
    assert queue.start(engine.check(REQUEST | {"model": "one"}), ANN, "detached").result().phase == "finished"
    until(lambda: coming(queue)["one"] is None)


def test_one_that_cannot_run_here_says_why_before_a_byte_is_fetched(
    hub: FakeHub, preload: Preload, tmp_path: Path
) -> None:
    needs = {"transformer": 1e6, "disk": 1}
    engine = Engine(catalogue(tmp_path, entry(Path("me/one"), device=None, needs=needs)), Wanted("cpu"))
    queue = preload(engine, "tiny")
    assert until_it_is(queue, "tiny", phase="failed")["error"] == engine.models()[0]["reason"]
    assert not hub.files
