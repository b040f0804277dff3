"""Workers and whole servers are killed under clients: no job is lost, drawn otherwise or drawn twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from bench import chaos
from bench.chaos import Outcome, run
from bench.support import served
from tests.inside import sitecustomize
from tests.support import programs
from tests.support.steps import Steps

WORKERS, SERVERS, CLIENTS = 2, 1, 4
"""Few, for each costs seconds; bench/README.md has a run with more."""
pytestmark = pytest.mark.timeout(2700)  # seven processes, on whatever machine


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("chaos")
    steps = Steps(folder / "steps")

    @contextlib.contextmanager
    def still() -> Iterator[None]:
        steps.hold(1)
        yield
        steps.go_on()

    with pytest.MonkeyPatch.context() as patch:
        for name, value in steps.environment.items():
            patch.setenv(name, value)
        patch.setattr(chaos, "CALM", (0.0, 1.0))  # the clients draw all the while
        sitecustomize.start_with(served, programs.start, patch.setattr)
        return run(WORKERS, SERVERS, CLIENTS, folder, still=still)


def test_the_kills_hit_jobs_that_were_being_drawn(outcome: Outcome) -> None:
    assert (len(outcome.kills["worker"]), len(outcome.kills["server"])) == (WORKERS, SERVERS)
    assert sum(one.attempts > 1 for one in outcome.asked) >= 2
    assert any(one.breaks for one in outcome.asked)


def test_no_job_is_lost_and_no_client_hangs(outcome: Outcome) -> None:
    assert [one.error for one in outcome.of("lost")] == []
    assert outcome.of("hung") == []


def test_every_picture_has_the_pixels_of_an_undisturbed_drawing(outcome: Outcome) -> None:
    assert len(outcome.asked) >= CLIENTS
    assert outcome.different == []


def test_no_job_finishes_twice_and_no_worker_outlives_its_server(outcome: Outcome) -> None:
    assert outcome.drawn_twice == []
    assert outcome.orphans == 0
