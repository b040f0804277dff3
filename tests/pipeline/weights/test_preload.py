"""Models are made ready at the start: in order, in the background, seen by everyone, and in nobody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.devices.hardware import Wanted
from pipeline.engine import Engine
from pipeline.errors import SettingError
from pipeline.weights.residency import Residency
from settings import Settings
from tests.support.hub import FakeHub, Repository, serve_hub, use_hub
from tests.support.tiny import SKETCH, catalogue, entry, hold, models_yaml

WEIGHTS = "transformer/diffusion"
REQUEST = {"prompt": "a fox", "steps": 1, "width": 64, "height": 64}


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with two models, the second gated; this process's token may fetch both."""
    with serve_hub() as hub:
        hub.repositories["me/one"] = Repository(tiny_folder)
        hub.repositories["me/two"] = Repository(tiny_folder, accepted=frozenset({"hf_good"}))
        use_hub(monkeypatch, hub, tmp_path / "hub", "hf_good")
        yield hub


@pytest.fixture
def engine(hub: FakeHub, tiny_folder: Path, tmp_path: Path) -> Engine:
    entries = [entry(Path(f"me/{name}"), name) for name in ("one", "two")]
    return Engine(catalogue(tmp_path, *entries, entry(tiny_folder, "here")))


def coming(engine: Engine) -> dict[str, Any]:
    return {model["id"]: model["coming"] for model in engine.models()}


def until(engine: Engine, model: str, **expected: Any) -> dict[str, Any]:
    """What is coming of this model, once it is as expected."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        at = coming(engine)[model]
        if at and all(at[name] == value for name, value in expected.items()):
            return at
        time.sleep(0.01)
    raise AssertionError(f"{model} never was {expected}: {coming(engine)[model]}")


def test_models_are_fetched_and_loaded_in_order_and_seen_doing_so(
    engine: Engine, hub: FakeHub, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    loading = hold(monkeypatch, Residency, "_place", call=3)
    assert coming(engine) == {"one": None, "two": None, "here": None}
    thread = engine.preload("one", "two")
    whole = sum(path.stat().st_size for path in tiny_folder.rglob("*") if path.is_file())
    at = until(engine, "one", phase="downloading", total=whole)
    assert 0 <= at["done"] < whole
    assert coming(engine)["two"] == {"phase": "queued", "done": 0, "total": 0, "error": None}
    hub.slow.set()
    loading.wait()
    assert until(engine, "one", phase="loading") == {"phase": "loading", "done": 2, "total": 5, "error": None}
    assert coming(engine)["two"]["phase"] == "queued"
    loading.open()
    thread.join(60)
    assert coming(engine) == {"one": None, "two": None, "here": None}
    for model in ("one", "two"):
        events = list(engine.start(engine.check(REQUEST | {"model": model})).events())
        assert events[-1].phase == "finished"
        assert not {"downloading", "loading"} & {event.phase for event in events}


def test_a_preload_is_given_up_when_the_process_ends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = hold(monkeypatch, Residency, "_place", call=2)
    thread = engine.preload("here", "one")
    loading.wait()
    ending = threading.Thread(target=engine.close, args=(60,))
    ending.start()
    while not engine.preloads.closed:
        time.sleep(0.01)
    loading.open()
    ending.join(60)
    assert not thread.is_alive()
    assert loading.calls < 5  # the parts of one model
    assert coming(engine)["one"]["phase"] == "queued"


def test_a_preload_that_downloads_keeps_nobody_waiting_even_on_its_own_device(
    engine: Engine, hub: FakeHub
) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    thread = engine.preload("one")
    until(engine, "one", phase="downloading")
    events = list(engine.start(engine.check(REQUEST | {"model": "here"})).events())
    assert events[-1].phase == "finished"
    assert not any(event.position for event in events)
    hub.slow.set()
    thread.join(60)


def test_a_preload_that_loads_is_said_to_be_ahead(
    engine: Engine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = hold(monkeypatch, Residency, "_place")
    thread = engine.preload("one")
    loading.wait()
    drawings = [engine.start(engine.check(REQUEST | {"model": "here"})) for _ in range(2)]
    for ahead, drawing in enumerate(drawings, 1):
        event = next(event for event in drawing.events() if event.position == ahead)
        assert event.preload == "One"
        assert event.info()["preload"] == "One"
    loading.open()
    assert next(event for event in drawings[1].events() if event.position <= 1).preload == ""
    assert [drawing.result().phase for drawing in drawings] == ["finished", "finished"]
    thread.join(60)


def test_whoever_asks_for_a_model_that_is_coming_sees_the_same_download(engine: Engine, hub: FakeHub) -> None:
    hub.slow, hub.held = threading.Event(), WEIGHTS
    engine.preload("one")
    at = until(engine, "one", phase="downloading")
    drawing = engine.start(engine.check(REQUEST | {"model": "one"}))
    event = next(event for event in drawing.events() if event.phase == "downloading" and event.total)
    assert event.total == at["total"] or not at["total"]
    hub.slow.set()
    assert drawing.result().phase == "finished"
    fetched = [file for file, _ in hub.files]
    assert len(fetched) == len(set(fetched))


def test_one_that_fails_says_why_and_the_next_one_comes_and_a_later_drawing_mends_it(
    engine: Engine, hub: FakeHub
) -> None:
    hub.repositories["me/one"].accepted = frozenset()
    engine.preload("one", "two").join(60)
    at = coming(engine)
    assert at["two"] is None
    assert at["one"]["phase"] == "failed"
    assert "accept its licence at https://opensource.org/license/mit" in at["one"]["error"]
    hub.repositories["me/one"].accepted = frozenset({"hf_good"})
    assert engine.start(engine.check(REQUEST | {"model": "one"})).result().phase == "finished"
    assert coming(engine)["one"] is None


def test_one_that_cannot_run_here_says_why_before_a_byte_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    needs = {"transformer": 1e6, "disk": 1}
    engine = Engine(catalogue(tmp_path, entry(Path("me/one"), device=None, needs=needs)), Wanted("cpu"))
    engine.preload("tiny").join(60)
    assert coming(engine)["tiny"]["error"] == engine.models()[0]["reason"]
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
