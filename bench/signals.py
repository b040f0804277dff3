"""Tells servers to end at every moment of their lives, by one signal or two, and looks how each ended.

    python -m bench.signals

Each row of the table is a server of its own. The moments count from the first line that it prints: at rest,
and while it draws a job that it found in its folder; and, before that, while it imports. A server ends well
with 0, without a traceback, its folder free and its job put back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
from filelock import FileLock, Timeout

from bench.support.served import Start
from bench.support.table import ROOT, command_line, free_port, scratch, setting, table
from jobs.data_dir.folder import OWNER
from jobs.store.event_log import LogReader
from jobs.store.log_names import log_path

INT, TERM = signal.SIGINT, signal.SIGTERM
SIGNALS = ((INT,), (TERM,), (INT, INT), (TERM, TERM), (TERM, INT))
BETWEEN = 0.05
"""Seconds between two signals of a pair."""
STEP = 0.05
"""Seconds from one moment to the next."""
IMPORTS = 0.4
"""The same while it imports, which takes some seconds."""
GRACE = 3
"""STEPWISE_GRACE: the job takes longer."""
NEVER = 90.0
"""Seconds after which a server counts as one that doesn't end."""
POLL = 0.005
SELDOM = 0.05
"""Seconds between two questions that cost the server something, or much to answer here."""
LONG = {
    "prompt": "a red apple",
    "model": "sketch",
    "width": 512,
    "height": 512,
    "steps": 60,
    "images": 2,
    "seed": 7,
}
"""What it draws: a minute and more."""


@dataclass(frozen=True)
class Ended:
    """How one server ended. moment: what it had come to, and the seconds after that. code: its exit status,
    None where it never ended. seconds: from the first signal to its end. job: what its job is then, and how
    often it counts as lost; None: it had none."""

    moment: str
    signals: tuple[signal.Signals, ...]
    code: int | None
    seconds: float
    log: str
    free: bool
    job: tuple[str, int] | None

    @property
    def noisy(self) -> bool:
        return any(words in self.log for words in ("Traceback", "terminate called", "Fatal Python error"))

    @property
    def well(self) -> bool:
        return self.code == 0 and not self.noisy and self.free and self.job in (None, ("queued", 0))


class Server:
    """`python app.py` in this folder, from its start to its end."""

    def __init__(self, folder: Path, start: Start = subprocess.Popen) -> None:
        """folder: for its data and its log. start: what starts it."""
        self.data, self._log = folder / "data", folder / "server.log"
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(folder / "gradio"),
            "HF_HUB_OFFLINE": "1",
            "STEPWISE_DATA": str(self.data),
            "STEPWISE_GRACE": str(GRACE),
        }
        with self._log.open("wb") as log:
            self.process = start(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    # What it can have come to.

    def importing(self) -> bool:
        """It has its folder, and listens."""
        with contextlib.suppress(OSError):
            return (self.data / OWNER).read_text().strip() == str(self.process.pid)
        return False

    def speaks(self) -> bool:
        """Its first line is there."""
        return "\n" in self.log()

    def open(self) -> bool:
        """Its port is."""
        return "Running on local URL" in self.log()

    def ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self._url}/readyz", timeout=30).status_code == 200
        return False

    def draws(self) -> bool:
        """Its job's steps have begun."""
        for job, attempt in rows(self.data, "SELECT id, attempt FROM jobs WHERE state = 'running'"):
            path = log_path(self.data / "events", job, attempt)
            return path.exists() and any(event.phase == "denoising" for event in LogReader(path).read())
        return False

    def until(self, come: Callable[[], bool], poll: float = POLL) -> None:
        """poll: seconds between two looks."""
        while not come():
            assert self.process.poll() is None, f"the server ended by itself:\n{self.log()}"
            time.sleep(poll)

    def end(self, moment: str, signals: Iterable[signal.Signals]) -> Ended:
        """Sends these, and waits for its end."""
        sent, began = tuple(signals), time.monotonic()
        for index, number in enumerate(sent):
            time.sleep(BETWEEN if index else 0)
            self.process.send_signal(number)
        try:
            code: int | None = self.process.wait(NEVER)
        except subprocess.TimeoutExpired:
            code = None
            self.process.kill()
            self.process.wait()
        seconds = time.monotonic() - began
        found = rows(self.data, "SELECT state, lost FROM jobs")
        return Ended(moment, sent, code, seconds, self.log(), is_free(self.data), found[0] if found else None)


def rows(data: Path, query: str) -> list[tuple]:
    """What a folder's jobs are; nothing as long as there are none."""
    path = data / "jobs.sqlite"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as store:
        return store.execute(query).fetchall()


def is_free(data: Path) -> bool:
    """Whether no server has this folder."""
    lock = FileLock(data / "lock")
    with contextlib.suppress(Timeout), lock.acquire(timeout=0):
        return True
    return False


def with_job(data: Path) -> None:
    """Has a job wait in this folder, if none does."""
    from jobs.store.models import Owner
    from jobs.store.sqlite import SqliteStore
    from pipeline.engine import EngineSpec

    if rows(data, "SELECT id FROM jobs WHERE state = 'queued'"):
        return
    engine = EngineSpec(ROOT / "models.yaml").engine()
    job = engine.check(LONG)
    store = SqliteStore(data / "jobs.sqlite")
    store.forget([ended.job for ended in store.ended()])
    store.add(job, engine.line(job.model), Owner("user:bench"), "detached", 1, 1)
    store.close()


def run(folder: Path, moments: int, importing: int) -> list[Ended]:
    """So many moments at rest, as many while it draws, and some while it imports."""
    found: list[Ended] = []

    def one(where: Path, what: str, come: Callable[[Server], bool], number: int, step: float) -> None:
        where.mkdir(exist_ok=True)
        server = Server(where)
        server.until(lambda: come(server))
        time.sleep(number * step)
        moment = f"{what} + {number * step:.2f} s"
        ended = server.end(moment, SIGNALS[number % len(SIGNALS)])
        found.append(ended)
        print(_row(ended), flush=True)
        if not ended.well:
            print(ended.log[-3000:], file=sys.stderr, flush=True)

    for number in range(importing):
        one(folder / "importing", "imports", Server.importing, number, IMPORTS)
    for number in range(moments):
        one(folder / "idle", "at rest, first line", Server.speaks, number, STEP)
    for number in range(moments):
        with_job(folder / "drawing" / "data")
        one(folder / "drawing", "drawing, first line", Server.speaks, number, STEP)
    return found


def names(signals: Iterable[signal.Signals]) -> str:
    return " ".join(number.name.removeprefix("SIG") for number in signals)


def _row(ended: Ended) -> str:
    job = "" if ended.job is None else f"{ended.job[0]}, lost {ended.job[1]}"
    cells = (
        ended.moment,
        names(ended.signals),
        "never" if ended.code is None else f"{ended.code}",
        f"{ended.seconds:.2f} s",
        "yes" if ended.noisy else "no",
        "yes" if ended.free else "no",
        job,
    )
    return f"| {' | '.join(cells)} |"


def report(found: list[Ended]) -> str:
    """The same, by signal."""
    lines: list[tuple[str, ...]] = [
        ("moments", "signals", "servers", "0", "traceback", "folder free", "seconds, median / most")
    ]
    for what in dict.fromkeys(one.moment.split(" +")[0] for one in found):
        for signals in SIGNALS:
            some = [one for one in found if one.moment.startswith(what) and one.signals == signals]
            if some:
                seconds = [one.seconds for one in some]
                lines.append(
                    (
                        what,
                        names(signals),
                        f"{len(some)}",
                        f"{sum(one.code == 0 for one in some)}",
                        f"{sum(one.noisy for one in some)}",
                        f"{sum(one.free for one in some)}",
                        f"{median(seconds):.2f} / {max(seconds):.2f}",
                    )
                )
    return table(f"{len(found)} servers, {sum(one.well for one in found)} of them ended well", lines)


def main() -> None:
    parser = command_line("signals", __doc__)
    parser.add_argument("--moments", type=int, default=60, help="of each, every 0.05 s (default 60)")
    parser.add_argument("--importing", type=int, default=15, help="every 0.4 s of the imports (default 15)")
    asked = parser.parse_args()
    print(setting(f"Sketch on the CPU, 512², 60 steps; STEPWISE_GRACE={GRACE}."), flush=True)
    print("\n| moment | signals | exit | seconds | traceback | folder free | job |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    with scratch() as folder:
        print(report(run(folder, asked.moments, asked.importing)))


if __name__ == "__main__":
    main()
