"""What crosses to a worker of ZeroGPU and back, and in which words ZeroGPU's refusals are told.
test_zerogpu_space.py runs the app there.

Off ZeroGPU `spaces` leaves a function as it is, so that here the worker's side runs in this process.
"""

from __future__ import annotations

import pickle
import threading
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio import Error
from packaging.requirements import Requirement

from pipeline.catalog.catalogue import read_catalogue
from pipeline.catalog.spec import ModelSpec
from pipeline.engine import Engine
from pipeline.errors import NonFiniteLatents, QuotaExceeded, ZeroGpuError
from pipeline.events import Event
from pipeline.executors.service_errors import zerogpu_error
from pipeline.executors.zerogpu import AT_ONCE, Draw, Started, ZeroGpu
from pipeline.request import GenerationRequest, Job
from pipeline.resolve import resolve
from pipeline.run import Cancel, Drawing, Emit, Run
from tests.support import programs
from tests.support.tiny import ROOT

MODELS = read_catalogue(ROOT / "models.yaml")
BIG = ["sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "z-image-turbo"]


def job(model: str, **values: Any) -> Job:
    return resolve(
        GenerationRequest.parse({"prompt": "a fox", "model": model, "seed": 7} | values), MODELS, ""
    )


# What crosses.


def test_all_that_crosses_to_a_worker_and_back_pickles_and_a_drawing_does_not() -> None:
    for name in (*BIG, "sketch"):
        one = job(name)
        event = Event(one, phase="denoising", step=3, previews=(b"jpeg",), images=(b"png",))
        for thing in (one, MODELS[name], event, Started(1.5), None):
            assert pickle.loads(pickle.dumps(thing)) == thing
    with pytest.raises(TypeError, match="Lock"):
        pickle.dumps(Drawing(job("sketch")))


# The executor, its worker's side in this process.


SPEC = MODELS["sketch"]


def here(draw: Draw) -> ZeroGpu:
    return ZeroGpu([SPEC], draw, "large")


def drawn(draw: Draw, emit: Emit = lambda _: None, cancel: Cancel | None = None, **values: Any) -> Event:
    """The last event of a job that the worker draws so."""
    return here(draw).run(job("sketch", **values), emit, cancel or Cancel())


def nobody_is_left(one: Job) -> None:
    names = [thread.name for thread in threading.enumerate()]
    assert f"drawing {one.short_id}" not in names
    assert "ZeroGPU" not in names


def test_every_step_and_its_preview_reach_the_reader() -> None:
    seen: list[Event] = []
    read = threading.Semaphore(0)

    def draw(run: Run, _: ModelSpec) -> None:
        for step in range(1, 6):
            run.update(phase="denoising", step=step, previews=(b"%d" % step,))
            assert read.acquire(timeout=60)  # steps that are slower than their reader

    def emit(event: Event) -> None:
        if event.phase == "denoising":
            seen.append(event)
            read.release()

    assert drawn(draw, emit).phase == "finished"
    assert [(event.step, event.preview) for event in seen] == [(n, b"%d" % n) for n in range(1, 6)]


def test_of_steps_that_are_quicker_than_their_reader_the_last_and_the_end_are_never_lost() -> None:
    for _ in range(20):
        seen: list[Event] = []

        def draw(run: Run, _: ModelSpec) -> None:
            for step in range(1, 200):
                run.update(phase="denoising", step=step)
            run.update(images=(b"png",))

        last = drawn(draw, seen.append)
        assert (last.phase, last.step, last.images) == ("finished", 199, (b"png",))
        assert seen[-1] is last
        assert [event.last for event in seen] == [False] * (len(seen) - 1) + [True]


def test_a_stop_ends_the_workers_thread_before_the_turn_ends() -> None:
    cancel, one = Cancel(), job("sketch")

    def draw(run: Run, _: ModelSpec) -> None:
        while True:
            run.update(phase="denoising", step=run.latest.step + 1, previews=(b"shown",))
            cancel.set()
            run.raise_if_cancelled()

    assert here(draw).run(one, lambda _: None, cancel).phase == "stopped"
    nobody_is_left(one)


def test_a_stop_is_seen_while_the_worker_has_no_news() -> None:
    """As while weights are loaded: `spaces` looks for a stop when the worker yields."""
    cancel, stuck = Cancel(), threading.Event()

    def draw(run: Run, _: ModelSpec) -> None:
        threading.Timer(0.1, cancel.set).start()
        with run.cancel.calling(stuck.set):
            assert stuck.wait(60)
        run.raise_if_cancelled()

    assert drawn(draw, cancel=cancel).phase == "stopped"


def test_a_job_that_was_stopped_before_its_turn_asks_for_no_gpu() -> None:
    cancel = Cancel()
    cancel.set()
    began: list[Run] = []
    assert drawn(lambda run, _: began.append(run), cancel=cancel).phase == "stopped"
    assert began == []


def test_so_many_have_a_gpu_at_a_time_and_closing_ends_them_and_those_that_wait() -> None:
    began, stopped = threading.Semaphore(0), threading.Event()

    def draw(run: Run, _: ModelSpec) -> None:
        began.release()
        with run.cancel.calling(stopped.set):
            assert stopped.wait(60)
        run.raise_if_cancelled()

    zero = here(draw)
    ends: list[Event] = []
    runs = [
        threading.Thread(target=lambda: ends.append(zero.run(job("sketch"), lambda _: None, Cancel())))
        for _ in range(AT_ONCE + 2)
    ]
    for thread in runs:
        thread.start()
    for _ in range(AT_ONCE):
        assert began.acquire(timeout=60)
    assert not began.acquire(timeout=0.2)
    zero.close()
    zero.join(60)
    for thread in runs:
        thread.join(60)
    assert [event.phase for event in ends] == ["stopped"] * (AT_ONCE + 2)


def test_a_failure_is_an_event_with_its_words_and_its_code() -> None:
    def draw(_: Run, __: ModelSpec) -> None:
        raise NonFiniteLatents("No picture, try another seed.")

    last = drawn(draw)
    assert (last.phase, last.error, last.code) == (
        "failed", "No picture, try another seed.", "non_finite_latents",
    )  # fmt: skip


def test_an_unforeseen_exception_is_explained_before_it_crosses() -> None:
    def draw(_: Run, __: ModelSpec) -> None:
        raise KeyError("secret")

    last = drawn(draw)
    assert last.code == "drawing_failed"
    assert "KeyError" in str(last.error)
    assert "secret" not in str(last.error)


def test_a_model_that_can_not_be_loaded_is_refused_with_the_cause_and_another_gets_its_room() -> None:
    def load(spec: ModelSpec) -> None:
        if spec.id == "sd3.5-large":
            raise FileNotFoundError("no such file")
        loaded.append(spec.id)

    loaded: list[str] = []
    zero = here(lambda run, spec: None)
    assert zero.refusal(MODELS["sd3.5-large"]) == ""
    zero.load_at_start([MODELS[name] for name in BIG], load)
    assert loaded == ["sd3.5-large-turbo", "sd3.5-medium"]
    assert "can't be read: no such file. Then restart it." in zero.refusal(MODELS["sd3.5-large"])
    assert zero.refusal(MODELS["sd3.5-medium"]) == ""
    assert "(20.4 GB) don't fit beside" in zero.refusal(MODELS["z-image-turbo"])


# Words.


@pytest.mark.parametrize(
    "title, said, kind, words",
    [
        ("ZeroGPU quota exceeded",
         "You have exceeded your free ZeroGPU quota (37s requested vs. 12s left). Try again in 3:12:05. ",
         QuotaExceeded, ["needs 36 s", "12 s are left", "3:12:05", "Sketch needs none"]),
        ("ZeroGPU quota exceeded", "You have exceeded your ZeroGPU runs limit. ",
         QuotaExceeded, ["more than you have left"]),
        ("ZeroGPU quota exceeded", "Space app has reached its GPU limit. Try re-running outside of examples",
         QuotaExceeded, ["Space's own share", "signed in"]),
        ("ZeroGPU quota exceeded", "No GPU was available after 60s. Try re-running outside of examples",
         ZeroGpuError, ["No GPU became free"]),
        ("ZeroGPU queue timeout", "No GPU was available after 60s. Retry later",
         ZeroGpuError, ["No GPU became free"]),
        ("ZeroGPU client error", "No GPU was available", ZeroGpuError, ["No GPU became free"]),
        ("ZeroGPU client error", "Expired ZeroGPU proxy token", ZeroGpuError, ["reload the page"]),
        ("ZeroGPU illegal duration", "The requested GPU duration (400s) is larger than the maximum allowed",
         QuotaExceeded, ["36 s", "Fewer steps"]),
        ("ZeroGPU pending credits exceeded", "You have too many ZeroGPU credits allocated to running tasks.",
         QuotaExceeded, ["when one has ended"]),
        ("ZeroGPU worker error", "GPU task aborted", ZeroGpuError, ["its process died", "36 s"]),
        ("ZeroGPU worker error", "AssertionError", ZeroGpuError, ["AssertionError"]),
    ],
)  # fmt: skip
def test_each_refusal_of_zerogpu_is_told_in_words_with_what_to_do(
    title: str, said: str, kind: type, words: list[str]
) -> None:
    error = zerogpu_error(Error(said, title=title), "Large", 36.4)
    assert type(error) is kind
    for word in words:
        assert word in str(error)
    assert "http" not in str(error)


def test_other_failures_of_zerogpu_are_told_too() -> None:
    unreachable = zerogpu_error(httpx.ConnectError("refused"), "Large", 36)
    assert "can't be reached" in str(unreachable)
    unknown = zerogpu_error(RuntimeError("ZeroGPU API /schedule error: 500"), "Large", 36)
    assert "500" in str(unknown)
    assert unknown.code == "zerogpu_error"


# The build.


def test_what_is_pinned_can_be_installed_beside_what_a_spaces_builder_adds() -> None:
    """`gradio[oauth,mcp]` of the README's `sdk_version`, `torch<=2.13.0`, `spaces==0.51.3`: what public build
    logs of ZeroGPU show, September 2026."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        pin.name: pin for line in lines if (text := line.split("#")[0].strip()) and (pin := Requirement(text))
    }
    version = {name: next(iter(pin.specifier)).version for name, pin in pins.items()}
    assert f"sdk_version: {version['gradio']}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    added = [Requirement(text) for text in ("torch<=2.13.0", "uvicorn>=0.14.0", *(requires("gradio") or []))]
    for wanted in added:
        if wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in ("oauth", "mcp")
        ):
            assert wanted.name not in version or wanted.specifier.contains(version[wanted.name]), str(wanted)
    assert pins["spaces"].specifier.contains("0.51.3")


# Elsewhere.


def test_elsewhere_nothing_imports_spaces(tmp_path: Path) -> None:
    check = "import sys, app, settings; settings.Settings().engine(); sys.exit('spaces' in sys.modules)"
    with programs.start_code(check, tmp_path) as process:
        assert process.wait(120) == 0


def test_elsewhere_an_engine_has_nothing_to_hold(engine: Engine) -> None:
    engine.load_for_zerogpu()
    assert engine.requirements(SPEC)[0].words == "Runs on the CPU."
