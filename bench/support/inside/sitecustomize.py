"""What `bench.crossings` records inside a server's processes. Python runs a module of this name at its start
where its folder is on PYTHONPATH; a process that the server starts inherits that.

The environment says what is recorded: BENCH_RECORDS is the folder for it, a file for each process with one
JSON list a line: [kind, seconds of CLOCK_MONOTONIC, thread, the thread's name, more …]. Always, for it costs
nothing that could be measured:

    step      a scheduler's step has ended; the pipeline calls its step callback next, in the same thread
    start     a thread has started another; more: that one's name, when it began to, and that one

Where BENCH_TRACE names a checkout, the functions of its files are traced (sys.setprofile), which takes time:

    seen      JPEG bytes were among a function's arguments or in what it returned or yielded; more: their
              CRC-32. They are looked for in containers, in pickled data and in immutable objects (frozen
              dataclasses, named tuples, pydantic's models), but not in others: those are shared, and a thread
              that calls one hasn't been given what is in it. The first time in each thread is recorded
    sent,     the same of a pipe of multiprocessing, whose messages may be objects or pickled data
    received
    answer    uvicorn was given a body that names a preview's file; more: that file's path
    woken     a thread goes on that another has told to; more: when, and the other thread. By a Condition,
              which Event, Queue, Semaphore and Future are made of, or an event loop's call_soon_threadsafe

What passes from one thread to another by no more than a shared attribute that it looks at now and then leaves
no `woken`, and an executor that speaks through other pipes or sockets no `sent`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import pickle
import queue
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

RECORDS, TRACE = "BENCH_RECORDS", "BENCH_TRACE"
SCHEDULER = "diffusers.schedulers.scheduling_flow_match_euler_discrete"
JPEG = b"\xff\xd8\xff"
PREVIEW = re.compile(rb"[\w/.-]+/preview\.jpg")
DEPTH = 5
"""How deep objects are looked into; and of how many parts, at most."""
MOST_PARTS = 64
PLAIN = frozenset({int, float, str, bool, type(None), type})

_file = -1


def _open() -> None:
    global _file
    path = Path(os.environ[RECORDS], f"{os.getpid()}.jsonl")
    _file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def record(kind: str, *more: Any) -> None:
    thread = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]
    name = thread.name if thread is not None else "?"
    line = json.dumps([kind, time.monotonic(), threading.get_native_id(), name, *more])
    os.write(_file, f"{line}\n".encode())


# What is always recorded.


class _Scheduler:
    """Changes the scheduler's module once it has been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != SCHEDULER:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: Any) -> None:
            run(module)
            scheduler = module.FlowMatchEulerDiscreteScheduler
            scheduler.step = _then(scheduler.step, lambda *_: record("step"))

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


def _then(call: Callable[..., Any], after: Callable[..., object]) -> Callable[..., Any]:
    """`call`, and after it what is to be recorded of its arguments."""

    def both(*arguments: Any, **named: Any) -> Any:
        result = call(*arguments, **named)
        after(*arguments)
        return result

    return both


def _recorded(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Thread.start, which is recorded."""

    def recorded(thread: threading.Thread) -> None:
        began = time.monotonic()
        start(thread)
        record("start", thread.name, began, thread.native_id)

    return recorded


# Who wakes whom.


def _trace_wakings() -> None:
    condition, loop = threading.Condition, asyncio.base_events.BaseEventLoop
    notify, soon = condition.notify, loop.call_soon_threadsafe

    def noted(self: Any, n: int = 1) -> None:
        if not hasattr(self, "_told"):
            self._told = deque(maxlen=8)
        self._told.append((time.monotonic(), threading.get_native_id(), set()))
        notify(self, n)

    def heard(self: Any, *_: Any) -> None:
        """By whoever holds the lock now: what it was told since it last did."""
        mine = threading.get_native_id()
        for at, thread, by in getattr(self, "_told", ()):
            if thread != mine and mine not in by:
                by.add(mine)
                record("woken", at, thread)

    def soon_noted(self: Any, callback: Any, *arguments: Any, context: Any = None) -> Any:
        at, thread = time.monotonic(), threading.get_native_id()

        def told(*given: Any) -> None:
            if thread != threading.get_native_id():
                record("woken", at, thread)
            callback(*given)

        return soon(self, told, *arguments, context=context)

    condition.notify = noted  # type: ignore[method-assign]
    condition.wait = _then(condition.wait, heard)  # type: ignore[method-assign]
    condition.__enter__ = _then(condition.__enter__, heard)  # type: ignore[method-assign]
    loop.call_soon_threadsafe = soon_noted  # type: ignore[method-assign]
    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[attr-defined,misc]  # the same, in Python


# Who sees a preview.


def jpegs(value: Any, depth: int = DEPTH) -> Iterator[int]:
    """CRC-32 of each JPEG in it."""
    kind = type(value)
    if kind in PLAIN or depth == 0:
        return
    if kind in (bytes, bytearray, memoryview):
        data = bytes(value)
        if data.startswith(JPEG):
            yield crc32(data)
        elif data.startswith(b"\x80") and JPEG in data:
            yield from jpegs(_unpickled_bytes(data), depth)
        return
    parameters = getattr(kind, "__dataclass_params__", None)
    if kind is dict:
        parts = list(value.values())
    elif isinstance(value, tuple | list | set | frozenset):
        parts = list(value)
    elif (parameters is not None and parameters.frozen) or hasattr(kind, "model_fields"):
        parts = list(getattr(value, "__dict__", {}).values())
    else:
        return
    for part in parts[:MOST_PARTS]:
        yield from jpegs(part, depth - 1)


def _unpickled_bytes(data: bytes) -> list[bytes]:
    """The bytes objects of a pickle: opcode B with their length in 4 bytes, C with it in one."""
    found, at = [], data.find(JPEG)
    while at >= 0:
        length = 0
        if data[at - 5 : at - 4] == pickle.BINBYTES:
            length = int.from_bytes(data[at - 4 : at], "little")
        elif data[at - 2 : at - 1] == pickle.SHORT_BINBYTES:
            length = data[at - 1]
        if length:
            found.append(data[at : at + length])
        at = data.find(JPEG, at + max(length, 1))
    return found


class Tracer:
    """The profile function of every thread."""

    def __init__(self, checkout: str) -> None:
        self._checkout = checkout.rstrip("/") + "/"
        self._kinds: dict[int, tuple[str, Any]] = {}
        self._known: set[tuple[Any, ...]] = set()

    def __call__(self, frame: Any, event: str, value: Any) -> None:
        if event not in ("call", "return"):
            return
        code = frame.f_code
        kind, _ = self._kinds.get(id(code)) or self._kinds.setdefault(id(code), (self._kind(code), code))
        if not kind:
            return
        if kind == "answer":
            if event == "call":
                self._look_at_answer(frame.f_locals.get("message"))
            return
        if kind in ("sent", "received") and (kind == "sent") != (event == "call"):
            return
        if event == "call":
            arguments = code.co_argcount + code.co_kwonlyargcount
            value = [frame.f_locals.get(name) for name in code.co_varnames[:arguments]]
        for found in jpegs(value):
            self._record_once(kind, found)

    def _kind(self, code: Any) -> str:
        file, name = code.co_filename, code.co_name
        if file.startswith(self._checkout) and not file.startswith((f"{self._checkout}.", __file__)):
            return "seen"
        if file.endswith("multiprocessing/connection.py"):
            return {"send": "sent", "send_bytes": "sent", "recv": "received", "recv_bytes": "received"}.get(
                name, ""
            )
        return "answer" if "/uvicorn/protocols/http/" in file and name == "send" else ""

    def _look_at_answer(self, message: Any) -> None:
        body = message.get("body", b"") if isinstance(message, dict) else b""
        for path in PREVIEW.findall(body):
            self._record_once("answer", path.decode())

    def _record_once(self, kind: str, what: Any) -> None:
        known = (kind, what, threading.get_native_id())
        if known not in self._known:
            self._known.add(known)
            record(kind, what)


def begin() -> None:
    """Does what the environment says."""
    if RECORDS not in os.environ:
        return
    _open()
    os.register_at_fork(after_in_child=_open)
    sys.meta_path.insert(0, _Scheduler())  # type: ignore[arg-type]
    threading.Thread.start = _recorded(threading.Thread.start)  # type: ignore[method-assign]
    if checkout := os.environ.get(TRACE):
        _trace_wakings()
        tracer = Tracer(checkout)
        threading.setprofile(tracer)
        sys.setprofile(tracer)


begin()
