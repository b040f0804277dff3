"""Reads what bench/support/inside records in a server's processes, and finds a preview's path in it: through
which threads it went, from the one that took the step to the one that answered its client.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Thread(NamedTuple):
    process: int
    number: int


class Step(NamedTuple):
    """A scheduler's step has ended."""

    at: float
    thread: Thread


class Woken(NamedTuple):
    """A thread goes on at `at`, told to by `by` at `told`."""

    at: float
    told: float
    by: Thread


@dataclass
class Hop:
    """One thread of a path. known: whether the one before is known to have woken it or sent it a message;
    False: it is the one that had seen the preview last."""

    thread: Thread
    known: bool = True


@dataclass
class Records:
    """All that a server's processes recorded. starts: (when, process, name) of threads; seen, sent, received:
    by a preview's CRC-32, when each thread first did; answers: by its file's path, when and by which thread
    it was first named in an answer; woken: by the thread that goes on, or begins."""

    steps: list[Step] = field(default_factory=list)
    starts: list[tuple[float, int, str]] = field(default_factory=list)
    seen: dict[int, dict[Thread, float]] = field(default_factory=lambda: defaultdict(dict))
    sent: dict[int, dict[Thread, float]] = field(default_factory=lambda: defaultdict(dict))
    received: dict[int, dict[Thread, float]] = field(default_factory=lambda: defaultdict(dict))
    answers: dict[str, tuple[float, Thread]] = field(default_factory=dict)
    woken: dict[Thread, list[Woken]] = field(default_factory=lambda: defaultdict(list))
    names: dict[Thread, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Records:
        found = cls()
        for file in sorted(folder.glob("*.jsonl")):
            process = int(file.stem)
            for line in file.read_text(encoding="utf-8").splitlines():
                kind, at, number, name, *more = json.loads(line)
                found._add(process, kind, at, Thread(process, number), name, more)
        found.steps.sort()
        return found

    def _add(self, process: int, kind: str, at: float, thread: Thread, name: str, more: list[Any]) -> None:
        self.names[thread] = name
        if kind == "step":
            self.steps.append(Step(at, thread))
        elif kind == "start":
            self.starts.append((at, process, more[0]))
            self.woken[Thread(process, more[2])].append(Woken(more[1], more[1], thread))
        elif kind == "woken":
            self.woken[thread].append(Woken(at, more[0], Thread(process, more[1])))
        elif kind == "answer":
            self.answers.setdefault(more[0], (at, thread))
        else:
            if kind != "seen":
                getattr(self, kind)[more[0]][thread] = at
            self.seen[more[0]].setdefault(thread, at)

    def steps_between(self, began: float, ended: float) -> list[Step]:
        return [step for step in self.steps if began <= step.at <= ended]

    def started_between(self, began: float, ended: float) -> Counter[tuple[int, str]]:
        """How many threads were started, by process and name; digits are no part of a name."""
        return Counter((process, general(name)) for at, process, name in self.starts if began <= at <= ended)

    def holders(self, step: Step, preview: int, answer: tuple[float, Thread]) -> int:
        """How many threads had a preview between its step and its answer, on its path or beside it; arguments
        as of `path`."""
        seen = {thread for thread, at in self.seen[preview].items() if step.at <= at <= answer[0]}
        return len(seen | {step.thread, answer[1]})

    def path(self, step: Step, preview: int, answer: tuple[float, Thread]) -> list[Hop]:
        """A preview's way from its step to its answer, found backwards: who woke the thread that answers, or
        sent it a message, after having seen the preview; who woke that one; and so on.

        Args:
            preview: its CRC-32.
            answer: when, and by which thread, its client was told of it.
        """
        seen = {step.thread: step.at} | {
            thread: at for thread, at in self.seen[preview].items() if at >= step.at and thread != step.thread
        }
        at, thread = answer
        at = min(at, seen.get(thread, at))
        path: list[Hop] = []
        while thread != step.thread:
            passed = {hop.thread for hop in path} | {thread}
            others = {other: when for other, when in seen.items() if other not in passed and when <= at}
            before = self._giver(preview, thread, at, others)
            path.append(Hop(thread, before is not None))
            thread = before or max(others, key=others.__getitem__)
            at = seen[thread]
        return [Hop(thread), *reversed(path)]

    def _giver(self, preview: int, thread: Thread, at: float, others: dict[Thread, float]) -> Thread | None:
        """Who gave a preview to a thread that first saw it then; None: unknown.

        Args:
            others: threads that had seen it, and since when.
        """
        sent = {
            other: when
            for other, when in self.sent[preview].items()
            if other in others and other.process != thread.process
        }
        if self.received[preview].get(thread) == at and sent:
            return max(sent, key=sent.__getitem__)
        wakings = [
            woken
            for woken in self.woken[thread]
            if woken.at <= at and woken.by in others and woken.told >= others[woken.by]
        ]
        return max(wakings).by if wakings else None


def general(name: str) -> str:
    """A thread's name without what differs from one job to the next."""
    return re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{4,}\b|\d+", "…", name)
