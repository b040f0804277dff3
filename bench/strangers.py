"""What strangers leave behind them, few and ten thousand of them in one run: disk, memory, and the time of
those who come after.

    python -m bench.strangers [SECTION ...]

claims: jobs that are started, drawn by nobody and ended in the store, each another person's and session's,
under the longest names that a client can choose; then what the file takes, and how long a claim.
mcp: sessions of MCP that are opened from one address, while a second one opens, lists and draws.
streams: joins whose answers nobody reads, of a drawing that has ended and of one that is being drawn.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.support import strangers_mcp, strangers_streams
from bench.support.table import command_line, percentile, setting, table
from jobs.lifecycle.ended_jobs import EndedJobs
from jobs.limits import Limits
from jobs.scheduling.fair_share import policy_for
from jobs.store.models import Owner, Record
from jobs.store.owner_names import LONGEST_NAME, person_of, session_of
from jobs.store.sqlite import SqliteStore
from pipeline.request import Job

LINE = "cuda"
FEW = 10
SESSION = 900_000
"""Characters of a session's name: nearly a request's longest body."""
PROMPTS = {"100 characters": "a" * 100, "twice 10,000 of 4 bytes": "🍎" * 10_000}
"""Of prompt and negative prompt; the second are the longest that are taken."""
CLAIMS = 300
"""That are timed each time, beside as many that wait as may."""
LOOK = 300
"""Jobs after which the queue looks at what is kept (`jobs.scheduling.housekeeping.MANY` changes)."""


@dataclass(frozen=True)
class Left:
    """size: bytes of the database and its log. memory: this process's RSS, in bytes. claims: seconds of
    each."""

    size: int
    memory: int
    claims: list[float]


class Strangers:
    """The owner's store, and the strangers who use it. Keeps what the rules' defaults let it."""

    def __init__(self, folder: Path, prompt: str) -> None:
        self._rules, self._prompt = Limits(), prompt
        self.store = SqliteStore(folder / "jobs.sqlite")
        self.ended = EndedJobs(self.store, folder / "events")
        self._owners = _owners()

    def come(self, strangers: int) -> None:
        """So many start a job, have their turn, and are gone."""
        for number in range(strangers):
            self._add()
            self._end(self._claim())
            if number % LOOK == 0:
                self.keep()
        self.keep()

    def keep(self, seconds: float | None = None) -> None:
        """As the queue's clock does. seconds: for which what ended is kept, where not as usual."""
        rules = self._rules
        self.ended.delete_old(rules.most_bytes, rules.most_seconds if seconds is None else seconds, ())

    def left(self) -> Left:
        """What they take now, and what claims take beside as many that wait as may; those come, too."""
        gc.collect()
        size, memory = self.store.size(), psutil.Process().memory_info().rss
        for _ in range(self._rules.room):
            self._add()
        claims = []
        for _ in range(CLAIMS):
            began = time.perf_counter()
            record = self._claim()
            claims.append(time.perf_counter() - began)
            self._end(record)
            self._add()
        for record in self.store.waiting(LINE):
            self.store.stop(record.job.id)
        return Left(size, memory, claims)

    def _add(self) -> None:
        job = Job(
            id=str(uuid.uuid4()),
            model="sketch",
            prompt=self._prompt,
            negative_prompt=self._prompt,
            width=256,
            height=256,
            steps=28,
            guidance=3.5,
            seed=1,
            images=1,
        )
        self.store.add(job, LINE, next(self._owners), "page", self._rules.room + 1, self._rules.each)

    def _claim(self) -> Record:
        record = self.store.claim(LINE, policy_for(LINE, self._rules.running_each), ["sketch"])
        assert record is not None
        return record

    def _end(self, record: Record) -> None:
        self.store.finish(record.job.id, record.attempt, "finished")


def _owners() -> Iterator[Owner]:
    """Each another person, in another session."""
    number = 0
    while True:
        number += 1
        yield Owner(person_of(f"{number:0{LONGEST_NAME}}"), session_of(f"{number:0{SESSION}}"))


def claims(asked: argparse.Namespace) -> str:
    rows: list[tuple[str, ...]] = [
        ("prompts", "strangers", "file and log", "RSS", "a claim beside 50: median", "p95")
    ]

    def row(prompt: str, strangers: str, left: Left) -> None:
        rows.append(
            (
                *(prompt, strangers, f"{left.size / 1e6:,.1f} MB", f"{left.memory / 1e6:,.0f} MB"),
                f"{statistics.median(left.claims) * 1e3:.2f} ms",
                f"{percentile(left.claims, 0.95) * 1e3:.2f} ms",
            )
        )

    for name, prompt in PROMPTS.items():
        # In memory where there is such a folder: a disk would sync twice for each job.
        memory = Path("/dev/shm")
        with tempfile.TemporaryDirectory(prefix="bench-", dir=memory if memory.is_dir() else None) as folder:
            strangers = Strangers(Path(folder), prompt)
            strangers.come(FEW)
            row(name, f"{FEW}", strangers.left())
            strangers.come(asked.strangers)
            row(name, f"{asked.strangers:,} more", strangers.left())
            strangers.keep(seconds=0)
            row(name, "all of them forgotten", strangers.left())
            strangers.store.close()
    return table("Claims", rows)


def mcp(asked: argparse.Namespace) -> str:
    return strangers_mcp.section(asked.strangers)


def streams(asked: argparse.Namespace) -> str:
    """As many joins as strangers_streams.JOINS, however many strangers are asked for."""
    with tempfile.TemporaryDirectory() as folder:
        return strangers_streams.report(strangers_streams.measure(Path(folder)))


SECTIONS: dict[str, Callable[[argparse.Namespace], str]] = {"claims": claims, "mcp": mcp, "streams": streams}


def main() -> None:
    parser = command_line("strangers", __doc__)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all of them"
    )
    parser.add_argument("--strangers", type=int, default=10_000, help="that come (default 10,000)")
    asked = parser.parse_args()
    if unknown := set(asked.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    print(
        setting(
            f"Users' names have {LONGEST_NAME} characters, sessions' {SESSION:,}; {CLAIMS} claims are timed "
            f"each time; every {LOOK} jobs what is past its bounds goes: 2 GB, 24 hours and 10,000 jobs."
        ),
        flush=True,
    )
    for name, section in SECTIONS.items():
        if name in (asked.sections or SECTIONS):
            print(section(asked), flush=True)


if __name__ == "__main__":
    main()
