"""Readers come and go: the newest event wins, and nobody who reads slowly, stops reading or vanishes holds
a drawing up. Jobs and events are plain data."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
from collections.abc import Awaitable

import pytest

from pipeline.engine import Engine
from pipeline.event_stream import EventStream
from pipeline.events import Event
from pipeline.request import Job
from pipeline.run import Cancel, Drawing, Run
from tests.support.steps import Steps
from tests.support.tiny import SMALL, draw, pixels


def stream_of(job: Job) -> tuple[EventStream, Run]:
    """The events of a job, and what publishes there."""
    stream = EventStream(Event(job))
    return stream, Run(job, stream.publish, Cancel())


def test_a_slow_reader_gets_the_newest_event_and_misses_the_rest(engine: Engine) -> None:
    stream, run = stream_of(engine.check(SMALL))
    reader = iter(stream.events())
    assert next(reader).step == 0
    for step in (1, 2, 3):
        run.update(phase="denoising", step=step)
    assert next(reader).step == 3
    run.finish("finished")
    assert [event.phase for event in reader] == ["finished"]


def test_a_slow_async_reader_gets_the_newest_event_and_misses_the_rest(engine: Engine) -> None:
    async def read() -> list[int]:
        stream, run = stream_of(engine.check(SMALL))
        reader = aiter(stream.events())
        steps = [(await anext(reader)).step]
        for step in (1, 2, 3):
            run.update(phase="denoising", step=step)
        steps.append((await anext(reader)).step)
        run.finish("finished")
        return [*steps, *[event.step async for event in reader]]

    assert asyncio.run(read()) == [0, 3, 3]


def test_sync_and_async_readers_see_the_same_end(engine: Engine, steps_here: Steps) -> None:
    steps_here.hold(1)
    drawing = engine.start(engine.check(SMALL))

    async def read() -> list[Event]:
        seen = []
        async for event in drawing.events():
            seen.append(event)
            steps_here.hold(event.step + 1)
        return seen

    read_async = asyncio.run(read())
    assert read_async[-1] is drawing.result()
    assert read_async[-1].phase == "finished"
    assert len(read_async) >= 3


def test_who_comes_late_still_gets_the_last_event(engine: Engine) -> None:
    drawing = engine.start(engine.check(SMALL))
    end = drawing.result()
    assert list(drawing.events()) == [end]


def test_a_reader_that_is_closed_holds_nothing_up(engine: Engine) -> None:
    drawing = engine.start(engine.check(SMALL))
    reader = iter(drawing.events())
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    assert drawing.result().phase == "finished"


def test_a_reader_that_never_reads_holds_nothing_up(engine: Engine) -> None:
    drawing = engine.start(engine.check(SMALL))
    silent, async_silent = iter(drawing.events()), aiter(drawing.events())
    assert drawing.result().phase == "finished"
    assert next(silent).phase == "finished"
    del async_silent


def test_a_reader_that_is_garbage_collected_holds_nothing_up(engine: Engine) -> None:
    drawing = engine.start(engine.check(SMALL))
    reader = iter(drawing.events())
    next(reader)
    del reader
    gc.collect()
    assert drawing.result().phase == "finished"


def test_an_async_reader_cancelled_while_it_waits_holds_nothing_up(engine: Engine) -> None:
    async def read(drawing: Drawing) -> None:
        task = asyncio.ensure_future(_last(drawing))
        reader = aiter(drawing.events())
        await anext(reader)
        task.cancel()
        await reader.aclose()  # type: ignore[attr-defined]

    drawing = engine.start(engine.check(SMALL))
    asyncio.run(read(drawing))
    assert drawing.result().phase == "finished"
    assert not drawing._listeners


def test_a_reader_whose_event_loop_has_closed_holds_nothing_up(engine: Engine) -> None:
    drawing = engine.start(engine.check(SMALL))
    loop = asyncio.new_event_loop()
    reader = aiter(drawing.events())
    loop.run_until_complete(anext(reader))
    loop.close()  # as when a server is torn down: nobody closed the reader
    assert drawing.result().phase == "finished"


def test_many_readers_of_one_drawing_each_see_its_end(engine: Engine) -> None:
    async def read(drawing: Drawing) -> list[Event]:
        return await asyncio.gather(*(_last(drawing) for _ in range(20)))

    drawing = engine.start(engine.check(SMALL))
    assert {event.phase for event in asyncio.run(read(drawing))} == {"finished"}


async def _last(drawing: Drawing) -> Event:
    return [event async for event in drawing.events()][-1]


def test_events_pickle(engine: Engine) -> None:
    for event in engine.start(engine.check(SMALL)).events():
        assert pickle.loads(pickle.dumps(event)) == event


def test_a_job_pickles_and_goes_to_json_and_back(engine: Engine) -> None:
    job = engine.check(SMALL | {"negative_prompt": "blue “ünï” 🍎", "guidance": 2.5, "width": 130})
    assert job.warnings
    assert pickle.loads(pickle.dumps(job)) == job
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert Job.model_validate(json.loads(json.dumps(job.model_dump()))) == job


def test_a_stored_job_draws_the_same_picture(engine: Engine) -> None:
    event = draw(engine)
    stored = Job.model_validate_json(event.job.model_dump_json())
    again = engine.start(stored).result()
    assert (pixels(again.images[0]) == pixels(event.images[0])).all()


def test_an_events_info_goes_to_json_at_every_phase(engine: Engine) -> None:
    for event in engine.start(engine.check(SMALL)).events():
        info = event.info()
        assert json.loads(json.dumps(info, allow_nan=False)) == info
        assert info["phase"] == event.phase


def test_an_async_reader_may_be_told_again_while_nothing_happens(engine: Engine) -> None:
    async def read() -> list[int]:
        stream, run = stream_of(engine.check(SMALL))
        reader = aiter(stream.events(repeat_after=0.01))
        steps = [(await anext(reader)).step for _ in range(3)]
        run.update(phase="denoising", step=1)
        while steps[-1] == 0:
            steps.append((await anext(reader)).step)
        run.finish("stopped")
        return [*steps, *[event.step async for event in reader]]

    steps = asyncio.run(read())
    assert steps[:3] == [0, 0, 0]
    assert steps[-1] == 1


def test_the_last_event_comes_once_however_often_one_is_repeated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is published in the very moment in which the newest event is to be repeated."""
    stream, run = stream_of(engine.check(SMALL))

    async def times_out(waits: Awaitable[object], _: float) -> None:
        run.finish("finished")
        await waits
        raise TimeoutError

    async def read() -> list[str]:
        monkeypatch.setattr(asyncio, "wait_for", times_out)
        return [event.phase async for event in stream.events(repeat_after=1)]

    assert asyncio.run(read()) == ["queued", "finished"]
