"""Kills workers and whole servers under clients, at random moments, and looks what became of every job.

    python -m bench.chaos

A real server, with one worker process, draws sketch for clients that speak REST, each with an id of its own
for every job. A client whose connection breaks waits for the server and follows its job again. Then each
job's picture is compared with one that was drawn undisturbed, in one process. The moments of the kills are
random, from a fixed seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench.support.comparison import parse_or_compare
from bench.support.rest import Disconnected, Refused, fetch, follow
from bench.support.served import Served
from bench.support.table import command_line, scratch, setting, table

SEED = 20261124
HUNG = 90.0
"""Seconds without an event after which a client counts as hung: one that waits is told every 5 s."""
AWAY = 300.0
"""Seconds for which a client looks for a server that was killed: on a busy machine one starts in minutes."""
MOST_ATTEMPTS = 2
"""Times that the job which is hit may have been begun. A job whose worker dies twice is set aside, and one
that was begun three times when its server ended fails, both by design."""
CALM = (0.0, 3.0)
"""Seconds from the first drawing after a kill to the next kill."""
REQUESTS = [
    {"prompt": prompt, "model": "sketch", "seed": 100 + number, "steps": steps, "width": size, "height": size}
    for number, (prompt, steps, size) in enumerate(
        (prompt, steps, size)
        for prompt in ("a red apple", "a fox on a blue background", "a snowman")
        for steps, size in ((6, 128), (20, 128), (12, 192), (24, 256))
    )
]
"""What is drawn: few, so that each is drawn undisturbed once; some 0.1 to 2 s of two cores."""


@dataclass
class Asked:
    """One job as its client saw it. told: the client had an event, so the job was promised. breaks: of its
    connection. attempts: times that it was begun; kills: of these, those whose worker died; finished: those
    that finished. hung, lost, error: what went wrong, if anything."""

    job: str
    request: int
    told: bool = False
    picture: bytes = b""
    hung: bool = False
    error: str = ""
    breaks: int = 0
    attempts: int = 0
    kills: int = 0
    finished: int = 0

    @property
    def lost(self) -> bool:
        return not self.picture and not self.hung


@dataclass
class Outcome:
    """What a run showed. kills: {worker, server: [seconds until the next drawing began]}; pages: seconds from
    a server's kill, and new start, to its page; different: jobs whose pixels differ; orphans: workers that
    outlived their server."""

    asked: list[Asked] = field(default_factory=list)
    kills: dict[str, list[float]] = field(default_factory=lambda: {"worker": [], "server": []})
    pages: list[float] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    orphans: int = 0

    def of(self, what: str) -> list[Asked]:
        return [one for one in self.asked if getattr(one, what)]

    @property
    def drawn_twice(self) -> list[Asked]:
        return [one for one in self.asked if one.finished > 1]


Still = Callable[[], contextlib.AbstractContextManager[None]]


def run(
    worker_kills: int,
    server_kills: int,
    clients: int,
    folder: Path,
    seed: int = SEED,
    still: Still = contextlib.nullcontext,
) -> Outcome:
    """One run.

    Args:
        folder: for the server's log, jobs and pictures.
        still: within it no drawing ends, so that a kill finds the one that it was aimed at.
    """
    served = Served(folder, STEPWISE_WORKERS="1", STEPWISE_MAX_WAITING_EACH="50")
    chaos = Chaos(served, random.Random(seed), still)
    try:
        served.start()
        asyncio.run(chaos.run(worker_kills, server_kills, clients))
    finally:
        served.kill()
    _compare(chaos.outcome)
    return chaos.outcome


class Chaos:
    """Clients and kills against one server."""

    def __init__(self, served: Served, chance: random.Random, still: Still) -> None:
        self.outcome = Outcome()
        self._served, self._chance, self._still = served, chance, still
        self._over = False

    async def run(self, worker_kills: int, server_kills: int, clients: int) -> None:
        async with httpx.AsyncClient(timeout=HUNG, limits=httpx.Limits(max_connections=None)) as http:
            self._http = http
            await self._served.answering(http)
            drawing = [asyncio.create_task(self._client()) for _ in range(clients)]
            try:
                kinds = ["worker"] * worker_kills + ["server"] * server_kills
                self._chance.shuffle(kinds)
                for kind in kinds:
                    await asyncio.sleep(self._chance.uniform(*CALM))
                    await self._kill(kind)
            finally:
                self._over = True
                await asyncio.gather(*drawing)
        for one in self.outcome.asked:
            self._look_up(one)

    # The kills.

    async def _kill(self, kind: str) -> None:
        with self._still():
            while not self._may_kill(kind):
                await asyncio.sleep(0.01)
            killed, began = time.time(), time.monotonic()
            worker = self._served.worker()
            if kind == "worker":
                worker.kill()
            else:
                self._served.kill()
        if kind == "server":
            with contextlib.suppress(Exception):
                worker.wait(5)
            self.outcome.orphans += worker.is_running() and worker.status() != "zombie"
            self._served.start()
            await self._served.answering(self._http)
            self.outcome.pages.append(time.monotonic() - began)
        while not (begun := self._rows("SELECT min(started) FROM jobs WHERE started > ?", killed)[0][0]):
            if time.monotonic() - began > HUNG:
                raise SystemExit(f"Nothing was drawn for {HUNG:.0f} s after the {kind} was killed.")
            await asyncio.sleep(0.05)
        self.outcome.kills[kind].append(begun - killed)

    def _may_kill(self, kind: str) -> bool:
        """A job is being drawn, and this kill may be survived by it."""
        running = self._rows("SELECT kills, attempt FROM jobs WHERE state = 'running'")
        fresh = all(
            attempt <= MOST_ATTEMPTS and (kind == "server" or not kills) for kills, attempt in running
        )
        return bool(running) and fresh and self._served.worker() is not None

    # The clients.

    async def _client(self) -> None:
        while not self._over:
            asked = Asked(
                str(uuid.UUID(int=self._chance.getrandbits(128))), self._chance.randrange(len(REQUESTS))
            )
            self.outcome.asked.append(asked)
            try:
                await self._draw(asked)
            except TimeoutError:
                asked.hung = True

    async def _draw(self, asked: Asked) -> None:
        """Until its picture is here, whatever happens to the server."""
        while True:
            try:
                pictures, info = await self._follow(asked)
                if info["phase"] == "unknown" and not asked.told:
                    continue
                if info["phase"] == "finished":
                    asked.picture = await fetch(self._http, pictures[0])
                else:
                    asked.error = f"{info['phase']}: {info.get('error')}"
                return
            except Refused as refusal:
                asked.error = str(refusal)
                return
            except (httpx.TransportError, Disconnected):
                asked.breaks += 1
                await asyncio.wait_for(self._served.answering(self._http), AWAY)

    async def _follow(self, asked: Asked) -> tuple[list[Any], dict[str, Any]]:
        """The last event of this job, for which it asks anew until the server has once told it something."""
        if asked.told:
            events = follow(self._http, self._served.url, "job", {"job": asked.job})
        else:
            request = REQUESTS[asked.request] | {"job": asked.job}
            events = follow(self._http, self._served.url, "generate", request)
        async with contextlib.aclosing(events):
            while True:
                try:
                    last = await asyncio.wait_for(anext(events), HUNG)
                except StopAsyncIteration:
                    return last
                asked.told = True

    # What the server wrote down.

    def _rows(self, query: str, *values: Any) -> list[tuple]:
        return self._served.rows(query, *values)

    def _look_up(self, asked: Asked) -> None:
        from jobs.store.event_log import last_event
        from jobs.store.log_names import name_of

        found = self._rows("SELECT attempt, kills FROM jobs WHERE id = ?", asked.job)
        asked.attempts, asked.kills = found[0] if found else (0, 0)
        logs = (self._served.data / "events").glob(f"{name_of(asked.job)}.*.events")
        events = [last_event(path) for path in logs]
        asked.finished = sum(event is not None and event.phase == "finished" for event in events)


def _compare(outcome: Outcome) -> None:
    """Draws each request once more, here, where nothing disturbs it."""
    import numpy as np
    from PIL import Image

    from bench.support.table import ROOT
    from pipeline.engine import EngineSpec

    def pixels(picture: bytes) -> Any:
        with Image.open(io.BytesIO(picture)) as image:
            return np.asarray(image.convert("RGB"))

    engine = EngineSpec(ROOT / "models.yaml").engine()
    for number, request in enumerate(REQUESTS):
        jobs = [one for one in outcome.asked if one.request == number and one.picture]
        if jobs:
            undisturbed = pixels(engine.start(engine.check(request)).result().images[0])
            outcome.different += [
                one.job for one in jobs if not np.array_equal(pixels(one.picture), undisturbed)
            ]


def report(outcome: Outcome, clients: int) -> str:
    kills = outcome.kills
    rows: list[tuple[str, ...]] = [("", "")]
    rows += [
        ("jobs of these clients", f"{len(outcome.asked)}, {clients} clients"),
        ("kills: workers, whole servers", f"{len(kills['worker'])}, {len(kills['server'])}"),
        ("connections that broke", f"{sum(one.breaks for one in outcome.asked)}"),
        ("jobs begun more than once", f"{sum(one.attempts > 1 for one in outcome.asked)}"),
        ("jobs lost (no finished picture)", f"{len(outcome.of('lost'))}"),
        ("of these, set aside after two worker kills", f"{sum(one.kills > 1 for one in outcome.of('lost'))}"),
        ("jobs with other pixels than undisturbed", f"{len(outcome.different)}"),
        (f"clients hung (no event for {HUNG:.0f} s)", f"{len(outcome.of('hung'))}"),
        ("jobs of which two attempts finished", f"{len(outcome.drawn_twice)}"),
        ("workers that outlived their server", f"{outcome.orphans}"),
    ]
    for kind, seconds in kills.items():
        if seconds:
            rows.append((f"from a {kind}'s kill to the next drawing's start", _spread(seconds)))
    if outcome.pages:
        rows.append(("from a server's kill, with its new start, to its page", _spread(outcome.pages)))
    lines = [f"- {one.job}: {one.error or 'no picture'}" for one in outcome.of("lost")]
    return "\n".join([table("Kills", rows), *lines])


def _spread(seconds: list[float]) -> str:
    return f"median {median(seconds):.1f} s, at most {max(seconds):.1f} s"


def main() -> None:
    parser = command_line("chaos", __doc__)
    parser.add_argument("--workers-killed", type=int, default=20, help="kills of the worker (default 20)")
    parser.add_argument("--servers-killed", type=int, default=5, help="of the whole server (default 5)")
    parser.add_argument("--clients", type=int, default=20, help="at the same time (default 20)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the moments (default {SEED})")
    asked = parse_or_compare(parser)
    print(
        setting(
            "Sketch on the CPU, 6 to 24 steps, 128² to 256², one worker process, all clients one person; "
            f"server and clients on this machine. Seed {asked.seed}."
        ),
        flush=True,
    )
    with scratch() as folder:
        outcome = run(asked.workers_killed, asked.servers_killed, asked.clients, folder, asked.seed)
    print(report(outcome, asked.clients))


if __name__ == "__main__":
    main()
