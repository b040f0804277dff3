"""What a job will take, from what others took: close to what it takes then, over a mixed load too. Most
drawings here are made up, with noise, by a law that the code under test doesn't know; the last are real ones
of the embedded model."""

from __future__ import annotations

import random
import statistics

import pytest

from jobs.eta.estimator import Estimator
from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.request import Job
from tests.jobs.eta.drawings import MEGAPIXEL, drawing, estimator, job, shown
from tests.support.tiny import SMALL


def test_nothing_is_said_of_a_model_that_was_never_drawn() -> None:
    one = estimator()
    assert one.seconds(job(), loaded=True) is None
    shown(one, drawing(job()))
    assert one.seconds(job(model="sd3.5-medium"), loaded=True) is None
    assert one.seconds(job(model="gone"), loaded=True) is None


def test_the_same_job_takes_what_it_took() -> None:
    one, asked = estimator(), job(images=3)
    events = drawing(asked)
    shown(one, events)
    assert one.seconds(asked, loaded=True) == pytest.approx(events[-1].seconds)


def test_more_steps_images_and_pixels_take_longer_in_proportion() -> None:
    one = estimator()
    shown(one, drawing(job(steps=10), step=0.1, decode=0.5, read=0.2))
    assert one.seconds(job(steps=20), loaded=True) == pytest.approx(0.2 + 2.0 + 0.5)
    assert one.seconds(job(steps=10, images=4), loaded=True) == pytest.approx(0.2 + 4 * 1.5)
    assert one.seconds(job(steps=10, width=512), loaded=True) == pytest.approx(0.2 + 0.75)


def test_a_model_that_must_be_loaded_takes_that_much_longer() -> None:
    one, asked = estimator(), job()
    shown(one, drawing(asked, read=0.2))
    shown(one, drawing(asked, read=0.4, loading=30), loaded=False)
    warm, cold = one.seconds(asked, loaded=True), one.seconds(asked, loaded=False)
    assert warm is not None
    assert cold == pytest.approx(warm + 30.2)


def test_guidance_costs_twice_until_it_was_seen() -> None:
    one, plain, guided = estimator(), job(guidance=1), job(guidance=1.5)
    shown(one, drawing(plain, step=0.1, decode=0.0, read=0.0))
    assert one.seconds(guided, loaded=True) == pytest.approx(28 * 0.2)
    shown(one, drawing(guided, step=0.13, decode=0.0, read=0.0))
    assert one.seconds(guided, loaded=True) == pytest.approx(28 * 0.13)
    assert one.seconds(plain, loaded=True) == pytest.approx(28 * 0.1)


def test_from_which_guidance_on_it_costs_is_the_familys_affair() -> None:
    one = estimator()
    shown(one, drawing(job(model="z-image-turbo", guidance=0), step=0.1, decode=0.0, read=0.0))
    asked = job(model="z-image-turbo", guidance=0.5)
    assert one.seconds(asked, loaded=True) == pytest.approx(28 * 0.2)


def test_a_slow_first_drawing_and_one_that_was_held_up_are_outvoted() -> None:
    one, asked = estimator(), job()
    for step in (0.5, 0.1, 0.1, 2.0, 0.1):
        shown(one, drawing(asked, step=step))
    assert one.seconds(asked, loaded=True) == pytest.approx(0.2 + 2.8 + 0.5)


def test_a_device_that_became_slower_is_believed_soon_whatever_is_drawn_there() -> None:
    """As a CPU that others use too: three pictures of one size say how long another size takes now."""
    one, small, large = estimator(), job(width=512), job()
    for _ in range(5):
        shown(one, drawing(small, step=0.1, decode=0.5, read=0))
        shown(one, drawing(large, step=0.2, decode=1.0, read=0))
    for _ in range(3):
        shown(one, drawing(small, step=0.3, decode=1.5, read=0))
    assert one.seconds(large, loaded=True) == pytest.approx(3 * (28 * 0.2 + 1.0))
    assert one.seconds(small, loaded=True) == pytest.approx(28 * 0.3 + 1.5)
    for _ in range(20):
        shown(one, drawing(small, step=0.1, decode=0.5, read=0))
    assert one.seconds(large, loaded=True) == pytest.approx(28 * 0.2 + 1.0)


def test_steps_that_alone_became_slower_are_believed_too() -> None:
    one, asked = estimator(), job()
    for step in [0.1] * 20 + [0.3] * 20:
        shown(one, drawing(asked, step=step))
    assert one.seconds(asked, loaded=True) == pytest.approx(0.2 + 28 * 0.3 + 0.5, rel=0.1)


# Over a mixed load.


def load(seed: int, length: int) -> list[tuple[Job, bool, list[Event]]]:
    """Drawings of three models in the sizes and steps that people ask for. A step costs what
    executors/zerogpu_seconds.py measured, loading what a disk gives; all of it varies by a tenth, and one in
    twenty is held up."""
    chance = random.Random(seed)
    laws = {"sd3.5-large": (0.0914, 0.233, 0.118), "sd3.5-medium": (0.048, 0.376, 0.075)}
    laws["sd3.5-large-turbo"] = laws["sd3.5-large"]
    sides = [(1024, 1024), (512, 512), (768, 768), (1216, 832), (640, 1536), (1344, 768), (896, 1152)]
    resident, made = "", []
    for _ in range(length):
        model = chance.choice([resident or "sd3.5-large", *laws])
        width, height = chance.choice(sides)
        guidance = 0.0 if model == "sd3.5-large-turbo" else chance.choice([1.0, 3.5, 4.5])
        steps = chance.choice([1, 4, 8] if model == "sd3.5-large-turbo" else [10, 20, 28, 40])
        asked = job(model=model, width=width, height=height, guidance=guidance, steps=steps)
        asked = asked.model_copy(update={"images": chance.choice([1, 1, 1, 2, 4])})
        forward, attention, floor = laws[model]
        pixels = width * height / MEGAPIXEL
        step = (2 if guidance > 1 else 1) * forward * ((1 - attention) * pixels + attention * pixels**2)
        held_up = chance.uniform(1.5, 3) if chance.random() < 0.05 else 1.0

        def varied(seconds: float, factor: float = held_up) -> float:
            return seconds * factor * chance.lognormvariate(0, 0.1)

        loaded = model == resident
        events = drawing(
            asked,
            step=varied(max(floor, step)),
            decode=varied(0.2 * pixels),
            read=varied(0.1),
            loading=0.0 if loaded else varied(8.0),
        )
        made.append((asked, loaded, events))
        resident = model
    return made


@pytest.mark.parametrize("seed", range(5))
def test_over_a_mixed_load_the_median_error_is_at_most_a_quarter(seed: int) -> None:
    """Each job is foreseen from those before it; of the events, the watcher misses a third."""
    one, chance, errors, unknown = estimator(), random.Random(seed), [], 0
    for asked, loaded, events in load(seed, 60):
        expected, took = one.seconds(asked, loaded), events[-1].seconds
        if expected is None:
            unknown += 1
        else:
            errors.append(abs(expected - took) / took)
        shown(one, [event for event in events if event.last or chance.random() > 1 / 3], loaded)
    assert unknown <= 4
    assert statistics.median(errors) <= 0.25
    assert statistics.median(errors[len(errors) // 2 :]) <= 0.15


# What is left of one that is being drawn.


def test_what_is_left_is_what_was_still_to_come() -> None:
    """At every event but those in the midst of steps, where it is the drawing's own estimate."""
    one, asked = estimator(), job(images=2, steps=5)
    events = drawing(asked, loading=10)
    shown(one, drawing(asked))
    shown(one, events, loaded=False)
    took = events[-1].seconds
    for event in events:
        left = one.remaining(event, loaded=False)
        if event.phase == "denoising" and event.step:
            assert left == event.eta
        elif event.phase != "encoding":  # then it isn't told that loading is over
            assert left == pytest.approx(took - event.seconds)


def test_what_is_left_shrinks_while_nothing_comes_and_is_never_negative() -> None:
    one, asked = estimator(), job()
    shown(one, drawing(asked))
    step = Event(asked, "denoising", step=3, eta=5.0)
    assert one.remaining(step, age=2.0) == 3.0
    assert one.remaining(step, age=60.0) == 0.0


def test_what_is_left_is_unknown_where_nothing_is_known() -> None:
    one = estimator()
    assert one.remaining(Event(job(), "encoding")) is None
    shown(one, drawing(job()))
    assert one.remaining(Event(job(), "downloading")) is None
    assert one.remaining(Event(job(), "failed")) == 0.0


# Real drawings.


def test_of_the_embedded_model_more_steps_and_pixels_are_foreseen_to_take_longer(engine: Engine) -> None:
    one = Estimator(engine.catalogue, engine.device)
    for values in ({}, {"width": 256}, {"steps": 2, "images": 2}):
        asked = engine.check(SMALL | values)
        observer = one.observe(asked, loaded=False)
        drawing = engine.start(asked)
        for event in drawing.events():
            observer.see(event)
        assert drawing.latest.phase == "finished"
    foreseen = [
        one.seconds(engine.check(SMALL | values), loaded=True)
        for values in ({}, {"steps": 8}, {"steps": 8, "images": 2}, {"steps": 8, "images": 2, "width": 512})
    ]
    known = [seconds for seconds in foreseen if seconds is not None]
    assert len(known) == 4
    assert 0 < known[0] < known[1] < known[2] < known[3] < 600
    assert one.remaining(drawing.latest) == 0.0
