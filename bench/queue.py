"""What taking turns costs and gains: the policy that the app claims with, and its real store, under a
simulated clock, beside first-come-first-served and beside turns that nobody may overtake.

    python -m bench.queue

Needs no GPU and draws nothing: drawing and swapping take what was measured. A fixed seed, so the tables are
the same on every machine.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from bench.support.table import percentile, table
from jobs.scheduling.fair_share import Fair
from jobs.store.models import Choice, Owner, Policy, QueueSnapshot, Record
from jobs.store.sqlite import SqliteStore
from pipeline.request import Job

SEED = 20261124
DRAWING = {"large": 5.3, "turbo": 0.5, "medium": 5.0}
"""Seconds at 1024² and the card's steps on one H200. Large and Turbo were measured (5.23 and 0.498 s);
Medium's is an estimate from fewer steps than its 40."""
SWAP = 6.0
"""Seconds until another model can begin: the hard case, its weights lie on disk. From host memory it is 0.3
and 0.1 s."""
GAP = 9.0
"""Mean seconds between two arrivals, of all visitors together."""
JOBS = 600
"""In each run of the first table."""
VISITORS = (2, 10, 100)
BURST = 50
ROUNDS = 8
"""Runs beside a visitor with 50 jobs, of which the worst wait is told."""
LINE = "cuda"


def first_come(waiting: Sequence[Record], sight: QueueSnapshot) -> Choice | None:
    """What a plain queue does."""
    return Choice(waiting[0].job.id) if waiting else None


POLICIES: dict[str, Policy] = {
    "first come, first served": first_come,
    "turns": Fair(most_overtaken=0),
    "turns, a ready model first": Fair(),
}


@dataclass(frozen=True)
class Arrival:
    """at: seconds from the start."""

    at: float
    owner: Owner
    model: str


@dataclass
class Outcome:
    """waits: of each job, in seconds from its arrival until its drawing began (swap included), by person.
    overtaken: of each job that was, when."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    overtaken: dict[str, list[float]] = field(default_factory=dict)
    swaps: int = 0

    def all_waits(self) -> list[float]:
        return [wait for waits in self.waits.values() for wait in waits]


def simulate(arrivals: Sequence[Arrival], policy: Policy, keeps: int, folder: Path) -> Outcome:
    """One device that draws one job at a time and keeps so many models, the last used.

    Args:
        arrivals: in order of time. folder: for the store's file, gone when this returns.
    """
    outcome = Outcome()
    now = 0.0
    path = folder / "jobs.sqlite"
    store = SqliteStore(path, lambda: now)

    def noting(waiting: Sequence[Record], sight: QueueSnapshot) -> Choice | None:
        choice = policy(waiting, sight)
        for job in choice.skipped if choice else ():
            outcome.overtaken.setdefault(job, []).append(sight.now)
        return choice

    resident: list[str] = []
    free, to_come = 0.0, list(reversed(arrivals))
    while True:
        while to_come and to_come[-1].at <= free:
            arrival = to_come.pop()
            now = arrival.at
            job = _job(len(to_come), arrival.model)
            store.add(job, LINE, arrival.owner, "page", len(arrivals), len(arrivals))
        now = free
        record = store.claim(LINE, noting, resident)
        if record is None:
            if not to_come:
                break
            free = to_come[-1].at
            continue
        model = record.job.model
        outcome.swaps += model not in resident
        begins = now + (0.0 if model in resident else SWAP)
        resident = [*(one for one in resident if one != model), model][-keeps:]
        outcome.waits.setdefault(record.owner.person, []).append(begins - record.created)
        now = free = begins + DRAWING[model]
        store.finish(record.job.id, record.attempt, "finished")
    store.close()
    path.unlink()
    return outcome


def mixed(visitors: int, chance: random.Random) -> list[Arrival]:
    """Poisson arrivals; visitor and model of each are anybody's and any."""
    found, at = [], 0.0
    for _ in range(JOBS):
        at += chance.expovariate(1 / GAP)
        found.append(Arrival(at, _visitor(chance.randrange(visitors)), chance.choice(list(DRAWING))))
    return found


def beside_a_burst(visitors: int, chance: random.Random, gap: float = GAP) -> list[Arrival]:
    """Visitor 0 brings 50 jobs at once; then each other brings one, at Poisson times."""
    found = [Arrival(0.0, _visitor(0), chance.choice(list(DRAWING))) for _ in range(BURST)]
    at = 0.0
    for visitor in range(1, visitors):
        at += chance.expovariate(1 / gap)
        found.append(Arrival(at, _visitor(visitor), chance.choice(list(DRAWING))))
    return found


def beside_a_minter(sessions: int, chance: random.Random) -> list[Arrival]:
    """Visitor 0 brings 50 jobs, one address as many from so many sessions, and five others one each."""
    others = beside_a_burst(6, chance)
    minted = [
        Arrival(0.0, Owner("address:minter", str(number % sessions)), chance.choice(list(DRAWING)))
        for number in range(BURST)
    ]
    return sorted([*others, *minted], key=lambda arrival: arrival.at)


def run(folder: Path) -> None:
    rows: list[tuple[str, ...]] = [
        (
            *("models kept", "visitors", "policy", "swaps", "wait, mean", "p95", "longest"),
            *("most often overtaken; longest", "one job beside 50: worst wait"),
        )
    ]
    for keeps in (1, 2):
        for visitors in VISITORS:
            arrivals = mixed(visitors, random.Random(SEED))
            for name, policy in POLICIES.items():
                outcome = simulate(arrivals, policy, keeps, folder)
                waits = outcome.all_waits()
                beside = max(
                    max(_without(outcome, _visitor(0).person))
                    for outcome in _rounds(beside_a_burst, visitors, policy, keeps, folder)
                )
                rows.append(
                    (
                        *(str(keeps), str(visitors), name, str(outcome.swaps)),
                        *(_seconds(statistics.fmean(waits)), _seconds(percentile(waits, 0.95))),
                        *(_seconds(max(waits)), _overtaking(outcome), _seconds(beside)),
                    )
                )
    drawing = ", ".join(f"{seconds:g} s ({model})" for model, seconds in DRAWING.items())
    print(
        f"{JOBS} jobs at Poisson times, one every {GAP:g} s in the mean, of three models alike: drawing "
        f"takes {drawing}, a swap {SWAP:g} s."
    )
    print(table("Who is next", rows))
    rows = [
        (
            *("policy", "five with one job: mean wait", "worst", "50 jobs of one session: mean wait"),
            *("50 sessions of one address, a job each", "were it one session"),
        )
    ]
    for name, policy in POLICIES.items():
        minted = _rounds(beside_a_minter, BURST, policy, 1, folder)
        single = _rounds(beside_a_minter, 1, policy, 1, folder)
        greedy, minter = _visitor(0).person, "address:minter"
        few = [wait for one in minted for wait in _without(one, greedy, minter)]
        rows.append(
            (
                *(name, _seconds(statistics.fmean(few)), _seconds(max(few))),
                *(_mean(minted, greedy), _mean(minted, minter), _mean(single, minter)),
            )
        )
    print(table(f"Beside who brings {BURST} jobs, and who mints sessions (one model kept)", rows))


def _rounds(
    arrivals: Callable[[int, random.Random], list[Arrival]],
    number: int,
    policy: Policy,
    keeps: int,
    folder: Path,
) -> list[Outcome]:
    return [
        simulate(arrivals(number, random.Random(SEED + one)), policy, keeps, folder) for one in range(ROUNDS)
    ]


def _without(outcome: Outcome, *persons: str) -> list[float]:
    return [wait for person, waits in outcome.waits.items() if person not in persons for wait in waits]


def _mean(outcomes: list[Outcome], person: str) -> str:
    return _seconds(statistics.fmean(wait for one in outcomes for wait in one.waits[person]))


def _overtaking(outcome: Outcome) -> str:
    if not outcome.overtaken:
        return "–"
    times = outcome.overtaken.values()
    return f"{max(map(len, times))}×; {_seconds(max(one[-1] - one[0] for one in times))}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s"


def _visitor(number: int) -> Owner:
    return Owner(f"address:{number}")


def _job(number: int, model: str) -> Job:
    return Job(
        id=str(UUID(int=number)),
        model=model,
        prompt="a red apple",
        negative_prompt="",
        width=1024,
        height=1024,
        steps=28,
        guidance=3.5,
        seed=1,
        images=1,
    )


if __name__ == "__main__":
    # In memory where there is such a folder: 20,000 jobs, and a disk would sync twice for each.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=memory if memory.is_dir() else None) as scratch:
        run(Path(scratch))
