"""The threads that use a device last: each one that ends leaves host memory behind on a GPU."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import pytest

from pipeline.devices.serial_thread import SerialThread
from pipeline.engine import Engine
from pipeline.sampling import preview, sample
from tests.support.tiny import SMALL


def test_every_drawing_and_every_preview_of_a_device_is_made_in_the_same_two_threads(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"decode": set(), "render": set()}

    def noted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            seen[name].add(threading.get_ident())
            return function(*args)

        return call

    monkeypatch.setattr(sample, "_decode", noted("decode", sample._decode))
    monkeypatch.setattr(preview, "render", noted("render", preview.render))
    for seed in range(3):
        engine.start(engine.check(SMALL | {"seed": seed})).result()
    assert len(seen["decode"]) == len(seen["render"]) == 1
    assert seen["decode"] != seen["render"]


def test_what_it_was_given_is_done_in_order_and_an_error_reaches_the_caller() -> None:
    thread, done = SerialThread("a thread"), []
    first, second = (thread.submit(done.append, number) for number in (1, 2))
    second.result(10)
    assert done == [1, 2]
    assert first.done()
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 // 0).result()
    assert thread.submit(lambda: "still there").result() == "still there"


def test_an_error_that_is_over_holds_nothing_in_memory() -> None:
    """As tensors that a failed drawing held: they go without a garbage collection."""

    class Tensor:
        pass

    def fails() -> None:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise MemoryError

    held: list[weakref.ref[Tensor]] = []
    thread = SerialThread("a thread")
    gc.disable()
    try:
        with pytest.raises(MemoryError) as caught:
            thread.submit(fails).result()
        del caught
        assert held[0]() is None
    finally:
        gc.enable()


def test_it_is_busy_until_what_it_was_given_is_done_and_whoever_waits_for_that_finds_it_idle() -> None:
    thread, gate = SerialThread("a thread"), threading.Event()
    assert not thread.busy
    thread.wait_idle(60)  # nothing was given: there is nothing to wait for
    first = thread.submit(gate.wait, 60)
    second = thread.submit(lambda: 1 // 0)
    assert thread.busy
    began = time.monotonic()
    thread.wait_idle(0.05)
    assert time.monotonic() - began < 30
    assert thread.busy
    gate.set()
    assert first.result(60)
    assert isinstance(second.exception(60), ZeroDivisionError)
    for _ in range(200):
        thread.submit(lambda: None).result()
        assert not thread.busy
    thread.wait_idle(60)
    assert not thread.busy


def test_work_that_failed_leaves_it_idle_and_waiting_for_it_raises_nothing() -> None:
    thread = SerialThread("a thread")
    failing = thread.submit(lambda: 1 // 0)
    thread.wait_idle(60)
    assert failing.done()
    assert thread.submit(lambda: "still there").result() == "still there"
