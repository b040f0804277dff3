"""What a test needs besides Python: a process, a browser, a training. `make quick` leaves those tests out.

A test needs what it mentions, or its fixtures do, or any function of the tests that these call: it is read
off their code, so that nobody has to mark what calls `serve`. Where our own code starts a process, a test
says so itself, with a marker; one that doesn't fails, in words.
"""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

KINDS = {
    "process": "starts a process: a server, a worker, the command line, a client",
    "browser": "drives a real Chromium",
    "training": "trains a model",
}
STARTS = frozenset({"Popen", "run", "check_call", "check_output", "call"})
"""What of `subprocess` starts a process."""
FORKS = frozenset({"fork", "forkpty", "posix_spawn"})
"""What of `os` does."""
PACKAGES = {
    "jobs.workers.launch": "process",
    "jobs.workers.process": "process",
    "multiprocessing": "process",
    "playwright.sync_api": "browser",
    "training": "training",
}
"""Packages and modules of which a test that mentions anything needs this."""
OURS = ("tests.", "bench.")
"""Packages whose functions are looked into."""
NOT_OURS = ("uname", "ldconfig", "gcc", "nvidia-smi")
"""Programs by which libraries look at the machine, now and then."""


def mark(items: list[pytest.Item]) -> None:
    """Adds to each test the markers of what it needs."""
    for item in items:
        definitions = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
        fixtures = [one.func for name in item.fixturenames for one in definitions.get(name, ())[-1:]]  # type: ignore[attr-defined]
        for kind in frozenset().union(*map(needs, [item.function, *fixtures])):  # type: ignore[attr-defined]
            item.add_marker(kind)
        if item.get_closest_marker("browser"):
            item.add_marker("process")


def needs(function: Any) -> frozenset[str]:
    """The kinds of what this function needs, and those of the tests that it calls."""
    found, seen, left = set[str](), set[int](), [function]
    while left:
        one = inspect.unwrap(left.pop())
        if id(one) in seen:
            continue
        seen.add(id(one))
        kinds, called = _mentioned(one)
        found |= kinds
        left += called
    return frozenset(found)


@cache
def _mentioned(one: Any) -> tuple[frozenset[str], tuple[Any, ...]]:
    """What a function or class mentions: kinds, and functions and classes of the tests."""
    if inspect.isclass(one):
        members = [getattr(member, "__func__", member) for member in vars(one).values()]
        members = [member.fget if isinstance(member, property) else member for member in members]
        return frozenset(), tuple(filter(inspect.isfunction, members))
    if not isinstance(one, FunctionType):
        return frozenset(), ()
    names = {name for code in _codes(one.__code__) for name in code.co_names}
    given = [*inspect.getclosurevars(one).nonlocals.values(), *(one.__defaults__ or ())]
    given += (one.__kwdefaults__ or {}).values()
    values = [one.__globals__[name] for name in names if name in one.__globals__]
    modules = [value for value in values if isinstance(value, ModuleType)]
    values += [getattr(module, name) for module in modules for name in names if _is_ours(module, name)]
    kinds = {
        kind
        for value in values
        for package, kind in PACKAGES.items()
        if f"{getattr(value, '__module__', None) or getattr(value, '__name__', '')}.".startswith(
            f"{package}."
        )
    }
    if (subprocess in modules and names & STARTS) or (os in modules and names & FORKS):
        kinds.add("process")
    called = [
        value
        for value in [*values, *given]
        if str(getattr(value, "__module__", "")).startswith(OURS) and callable(value)
    ]
    return frozenset(kinds), tuple(called)


def _is_ours(module: ModuleType, name: str) -> bool:
    return module.__name__.startswith(OURS) and hasattr(module, name)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of those that stand inside."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


class Guard:
    """Fails a test that starts a process and isn't marked for it.

    What starts one is wrapped: an audit hook would be called at each `id()` of the libraries, too, in 0.6 µs.
    """

    def __init__(self) -> None:
        self._test: pytest.Item | None = None
        self._words = ""
        subprocess.Popen._execute_child = self._told(subprocess.Popen._execute_child, 1)  # type: ignore[attr-defined]
        for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp"):
            if hasattr(os, name):
                setattr(os, name, self._told(getattr(os, name), 0))

    def begin(self, test: pytest.Item) -> None:
        """From now on this test runs."""
        self._test, self._words = None if test.get_closest_marker("process") else test, ""

    def end(self) -> None:
        """It has ended.

        Raises:
            AssertionError: it has started a process, in whatever thread, and may not.
        """
        self._test = None
        assert not self._words, self._words

    def forgive(self) -> None:
        """Forgets what was started, on purpose."""
        self._words = ""

    def _told(self, start: Callable[..., Any], at: int) -> Callable[..., Any]:
        """Such a function, whose argument at this place says what is started, where it has any."""

        @functools.wraps(start)  # whose signature is asked for (tests/inside/forked.py)
        def told(*arguments: Any, **options: Any) -> Any:
            if self._test is not None:
                given = arguments[at : at + 1]
                self._heard(self._test, given[0] if given else "a fork")
            return start(*arguments, **options)

        return told

    def _heard(self, test: pytest.Item, started: Any) -> None:
        program = os.fsdecode(started if isinstance(started, str | bytes | os.PathLike) else started[0])
        if program.endswith(NOT_OURS):
            return
        self._words = (
            f"{test.nodeid} starts a process ({program}), and `make quick` would run it: "
            "mark it with @pytest.mark.process."
        )
        if threading.current_thread() is threading.main_thread():  # others' errors may be waited for in vain
            raise AssertionError(self._words)
