"""The threads that use a device last: each one that ends leaves host memory behind on a GPU."""

from __future__ import annotations

import gc
import threading
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
    hand, done = SerialThread("a hand"), []
    first, second = (hand.start(done.append, number) for number in (1, 2))
    second.result(10)
    assert done == [1, 2]
    assert first.done()
    with pytest.raises(ZeroDivisionError):
        hand.do(lambda: 1 // 0)
    assert hand.do(lambda: "still there") == "still there"


def test_an_error_that_is_over_holds_nothing_in_memory() -> None:
    """As tensors that a failed drawing held: they go without a garbage collection."""

    class Tensor:
        pass

    def fails() -> None:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise MemoryError

    held: list[weakref.ref[Tensor]] = []
    hand = SerialThread("a hand")
    gc.disable()
    try:
        with pytest.raises(MemoryError) as caught:
            hand.do(fails)
        del caught
        assert held[0]() is None
    finally:
        gc.enable()
