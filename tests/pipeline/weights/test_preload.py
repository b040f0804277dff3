"""A model is made ready before its first drawing: how far it is, what ends it, and why it may fail. In which
order, and in nobody's way, is the queue's: tests/jobs/scheduling/test_preload.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import SD3Transformer2DModel

from pipeline.devices.hardware import Wanted
from pipeline.engine import Engine
from pipeline.errors import ModelUnavailable, SettingError, Stopped, WeightsError
from pipeline.run import Cancel, Preparation
from pipeline.weights.residency import Residency
from settings import Settings
from tests.support.coming_models import REQUEST, WEIGHTS, engine_with_three, hub_with_two
from tests.support.services.hub import FakeHub
from tests.support.tiny import SKETCH, catalogue, entry, hold, models_yaml


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with hub_with_two(tiny_folder, tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture
def engine(hub: FakeHub, tiny_folder: Path, tmp_path: Path) -> Engine:
    return engine_with_three(tiny_folder, tmp_path)


class Loading:
    """Makes a model ready in a thread of its own, and keeps what is told of it."""

    def __init__(self, engine: Engine, model: str) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.cancel = Cancel()
        self.error: BaseException | None = None
        self._changed = threading.Condition()

        def report(*at: Any) -> None:
            with self._changed:
                self.told.append(at)
                self._changed.notify()

        def load() -> None:
            try:
                engine.load(model, Preparation(report, self.cancel))
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=load, daemon=True)
        self.thread.start()

    def until(self, true: Callable[[tuple[str, int, int]], bool]) -> tuple[str, int, int]:
        """What is told, once it is so."""
        with self._changed:
            assert self._changed.wait_for(lambda: bool(self.told) and true(self.told[-1]), 600)
            return self.told[-1]

    def end(self) -> BaseException | None:
        """The error that it ended with."""
        self.thread.join(600)
        assert not self.thread.is_alive()
        return self.error


def test_a_model_is_fetched_and_loaded_and_tells_how_far_it_is(
    engine: Engine, hub: FakeHub, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    gate = hold(monkeypatch, Residency, "_place", call=3)
    loading = Loading(engine, "one")
    whole = sum(path.stat().st_size for path in tiny_folder.rglob("*") if path.is_file())
    phase, done, total = loading.until(lambda told: told[2] > 0)
    assert (phase, total) == ("downloading", whole)
    assert 0 <= done < whole
    hub.slow.set()
    gate.wait()
    assert loading.told[-1] == ("loading", 2, 5)
    gate.open()
    assert loading.end() is None
    assert engine.ready_models() == ("one",)
    events = list(engine.start(engine.check(REQUEST | {"model": "one"})).events())
    assert events[-1].phase == "finished"
    assert not {"downloading", "loading"} & {event.phase for event in events}


def test_loading_is_given_up_at_once_and_what_it_read_stays(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, Residency, "_place", call=2)
    loading = Loading(engine, "here")
    gate.wait()
    loading.cancel.set()
    assert isinstance(loading.end(), Stopped)  # though that network is being read
    gate.open()
    engine.close(60)
    assert gate.calls == 2  # of five
    assert engine.start(engine.check(REQUEST | {"model": "here"})).result().phase == "finished"
    assert gate.calls == 5


def test_loading_ends_when_the_engine_is_closed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = hold(monkeypatch, Residency, "_place", call=2)
    loading = Loading(engine, "here")
    gate.wait()
    ending = threading.Thread(target=engine.close, args=(60,))
    ending.start()
    assert isinstance(loading.end(), Stopped)
    assert ending.is_alive()
    gate.open()
    ending.join(60)
    assert gate.calls < 5  # the parts of one model


def test_a_download_is_given_up_and_the_next_try_goes_on_with_it(engine: Engine, hub: FakeHub) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    loading = Loading(engine, "one")
    loading.until(lambda told: told[2] > 0)
    loading.cancel.set()
    assert isinstance(loading.end(), Stopped)
    hub.slow.set()
    engine.load("one")
    assert engine.ready_models() == ("one",)


def test_a_download_keeps_nobody_waiting_even_on_its_own_device(engine: Engine, hub: FakeHub) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    loading = Loading(engine, "one")
    loading.until(lambda told: told[0] == "downloading")
    assert engine.start(engine.check(REQUEST | {"model": "here"})).result().phase == "finished"
    assert loading.told[-1][0] == "downloading"
    hub.slow.set()
    assert loading.end() is None


def test_loading_waits_for_the_drawing_that_has_the_device_and_says_so(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    drawing = engine.start(engine.check(REQUEST | {"model": "here"}))
    gate.wait()
    loading = Loading(engine, "one")
    assert loading.until(lambda told: told[0] == "queued")[0] == "queued"
    assert "loading" not in [phase for phase, *_ in loading.told]
    gate.open()
    assert drawing.result().phase == "finished"
    assert loading.end() is None
    assert loading.told[-1][0] == "loading"


def test_whoever_asks_for_a_model_that_is_coming_sees_the_same_download(engine: Engine, hub: FakeHub) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    loading = Loading(engine, "one")
    _, _, total = loading.until(lambda told: told[2] > 0)
    drawing = engine.start(engine.check(REQUEST | {"model": "one"}))
    event = next(event for event in drawing.events() if event.phase == "downloading" and event.total)
    assert event.total == total
    hub.slow.set()
    assert drawing.result().phase == "finished"
    assert loading.end() is None
    fetched = [file for file, _ in hub.files]
    assert len(fetched) == len(set(fetched))


def test_one_that_fails_says_why_and_a_later_drawing_mends_it(engine: Engine, hub: FakeHub) -> None:
    hub.repositories["me/one"].accepted = frozenset()
    with pytest.raises(WeightsError, match=r"accept its licence at https://opensource\.org/license/mit"):
        engine.load("one")
    hub.repositories["me/one"].accepted = frozenset({"hf_good"})
    assert engine.start(engine.check(REQUEST | {"model": "one"})).result().phase == "finished"


def test_one_that_cannot_run_here_says_why_before_a_byte_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    needs = {"transformer": 1e6, "disk": 1}
    engine = Engine(catalogue(tmp_path, entry(Path("me/one"), device=None, needs=needs)), Wanted("cpu"))
    with pytest.raises(ModelUnavailable) as refusal:
        engine.load("tiny")
    assert str(refusal.value) == engine.models()[0]["reason"]
    assert not hub.files


def settings(folder: Path, monkeypatch: pytest.MonkeyPatch, preload: str | None) -> Settings:
    far = {**entry(Path("me/far"), "far"), "backend": "inference"}
    for key in ("device", "preview"):
        del far[key]
    models = models_yaml(folder, entry(Path("me/one"), "one"), entry(SKETCH, "sketch"), far)
    monkeypatch.setenv("STEPWISE_MODELS", str(models))
    monkeypatch.delenv("STEPWISE_PRELOAD", raising=False)
    if preload is not None:
        monkeypatch.setenv("STEPWISE_PRELOAD", preload)
    return Settings()


@pytest.mark.parametrize(
    "preload, models",
    [("one", ["one"]), (" sketch , one,, sketch", ["sketch", "one"]), ("", []), (None, [])],
    ids=["one", "two, with a slip of the pen", "empty", "unset, where the default would be downloaded"],
)
def test_the_owner_says_which_models_and_none_is_downloaded_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preload: str | None, models: list[str]
) -> None:
    chosen = settings(tmp_path, monkeypatch, preload)
    assert chosen.to_preload(chosen.engine()) == models


def test_the_default_model_is_made_ready_where_it_is_here_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPWISE_MODELS", str(models_yaml(tmp_path, entry(SKETCH, "sketch"))))
    monkeypatch.delenv("STEPWISE_PRELOAD", raising=False)
    chosen = Settings()
    assert chosen.to_preload(chosen.engine()) == ["sketch"]


@pytest.mark.parametrize("preload", ["sketchy", "sketch;one", "one,far"])
def test_an_id_that_cannot_be_loaded_stops_the_start_in_words_that_list_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preload: str
) -> None:
    chosen = settings(tmp_path, monkeypatch, preload)
    with pytest.raises(SettingError, match=r"STEPWISE_PRELOAD: .*of: one, sketch\.$"):
        chosen.to_preload(chosen.engine())
