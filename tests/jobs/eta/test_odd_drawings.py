"""Drawings that don't go as foreseen, or are seen in part, teach the estimator nothing wrong."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pipeline.events import Event
from tests.jobs.eta.drawings import drawing, estimator, job, shown


def test_a_stopped_drawing_teaches_the_steps_that_it_did() -> None:
    one, asked = estimator(), job(steps=28)
    events = drawing(asked, step=0.1)
    half = next(index for index, event in enumerate(events) if event.step == 10)
    stopped = Event(**{**vars(events[half]), "phase": "stopped", "seconds": events[half].seconds + 50})
    shown(one, [*events[: half + 1], stopped])
    assert one.seconds(asked, loaded=True) == pytest.approx(0.2 + 2.8)


def test_a_drawing_stopped_before_its_first_step_teaches_nothing_wrong() -> None:
    one, asked = estimator(), job()
    shown(one, [*drawing(asked, read=1.0)[:3], Event(asked, "stopped", seconds=90)])
    assert one.seconds(asked, loaded=True) is None


def test_a_drawing_begun_again_for_want_of_memory_does_not_count_its_loading_as_steps() -> None:
    one, asked = estimator(), job(steps=4)
    events = drawing(asked, step=0.1)
    again = [Event(**{**vars(event), "seconds": event.seconds + 60}) for event in drawing(asked, loading=20)]
    tried = events[:5]
    back = Event(asked, "denoising", seconds=tried[-1].seconds)
    shown(one, [*tried, back, *again[1:]])
    assert one.seconds(asked, loaded=True) == pytest.approx(0.2 + 0.4 + 0.5)


def test_a_download_in_its_turn_is_no_part_of_the_pace() -> None:
    one, asked = estimator(), job()
    fetched = [Event(asked, "downloading"), Event(asked, "downloading", seconds=600.0)]
    after = [Event(**{**vars(event), "seconds": event.seconds + 600}) for event in drawing(asked)[1:]]
    shown(one, [*fetched, *after])
    assert one.seconds(asked, loaded=True) == pytest.approx(0.2 + 2.8 + 0.5)


def test_of_a_provider_whose_steps_are_not_seen_whole_pictures_are_learned() -> None:
    one, asked = estimator(), job(images=2, steps=10)
    there: dict[str, Any] = {"phase": "denoising", "provider": "somebody"}
    shown(
        one,
        [
            Event(asked, **there),
            Event(asked, **there, seconds=5.0, warnings=("another size",)),
            Event(asked, **there, step=10, seconds=5.0, images=(b"1",)),
            Event(asked, **there, image=2, seconds=5.0, images=(b"1",)),
            Event(asked, **there, image=2, step=10, seconds=10.0, images=(b"1", b"2")),
            Event(asked, "finished", 10, 2, seconds=10.0, images=(b"1", b"2"), provider="somebody"),
        ],
    )
    assert one.seconds(asked, loaded=True) == pytest.approx(10.0)


def test_of_events_that_were_missed_nothing_is_made_up() -> None:
    """Whichever events a watcher gets, a step's time is what it was."""
    chance, asked = random.Random(0), job(images=3, steps=6)
    events = drawing(asked, step=0.1, decode=0.5, read=0.0)
    for _ in range(300):
        one = estimator()
        shown(one, [event for event in events if chance.random() < 0.3])
        for images in (1, 2):
            short = one.seconds(job(images=images, steps=1), loaded=True)
            if short is not None:
                each = one.seconds(job(images=images, steps=11), loaded=True)
                assert each == pytest.approx(short + images * 10 * 0.1)
