"""What of Gradio's queue and sessions (6.31) doesn't last in a server that runs for weeks, and what takes its
place. How that is put into Gradio stands in patches.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from gradio.context import LocalContext
from gradio.queueing import Queue

from api.gradio.joins import limit_open_calls
from api.gradio.patches import (
    Push,
    event_id,
    keep_no_widget_configs,
    open_events,
    queue_of,
    replace_function,
    replace_messages,
    replace_sleep,
    running_events,
    stop_progress_updates,
    wrap_push,
)
from api.gradio.unread import MOST, MOST_EACH, READER_TIMEOUT, Messages, Unread

if TYPE_CHECKING:
    import gradio as gr

MOST_SESSIONS = 100
"""Whose changed widgets Gradio keeps (`state_session_capacity`), of its 10,000: 4 KB each, and what was sent
to them. This page has no gr.State, so a session that is dropped loses nothing."""
UNREAD = 300.0
"""Seconds after its last event for which a session's unread messages are kept: a REST caller may fetch them
late, or never."""
MOST_UNREAD = 300
"""Sessions that are kept so at once; of whoever has the most of them, those that were over first go first.
Their bytes are bounded in unread.py."""
LONGEST_SLEEP = 1.0
"""Seconds that the queue sleeps at a time while nothing waits in it: as late as this it notices what came
another way than by `push`, of which Gradio has none."""
RETRY_INTERVAL = 0.02
"""Seconds until it looks again whether what waits in it may begin."""


def harden_queue(demo: gr.Blocks, unread: float = UNREAD, most_unread: int = MOST_UNREAD) -> None:
    """Replace what doesn't last of this page's queue. Call it after `demo.queue` and before `demo.launch`.

    Args:
        unread, most_unread: see UNREAD and MOST_UNREAD.
    """
    queue = queue_of(demo)
    sessions = Sessions(demo, unread, most_unread)
    replace_messages(queue, sessions)
    for function in demo.fns.values():
        if inspect.isasyncgenfunction(function.fn):
            replace_function(function, paced_by_reader(function.fn, sessions.messages))
    limit_open_calls(queue)
    _sleep_until_called(queue)
    stop_progress_updates(queue)
    keep_no_widget_configs()


def _sleep_until_called(queue: Queue) -> None:
    """Make the queue sleep until a call comes. Gradio's looks for work 1,000 times a second: with its looks
    for news of progress bars 3 % of a core at rest, and as many interruptions of a drawing. A number in place
    of its thousandth of a second (`sleep_when_free`) would make every call wait for it: see
    docs/library-patches.md."""
    called: asyncio.Future[None] | None = None

    def wake() -> None:
        if called is not None and not called.done():
            called.set_result(None)

    async def until_called() -> None:
        nonlocal called
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        timer = loop.call_later(RETRY_INTERVAL if len(queue) else LONGEST_SLEEP, wake)
        try:
            await called
        finally:
            timer.cancel()

    def waking(push: Push) -> Push:
        async def push_and_wake(*values: Any, **named: Any) -> Any:
            answer = await push(*values, **named)
            wake()
            return answer

        return push_and_wake

    replace_sleep(queue, until_called)
    wrap_push(queue, waking)


class Sessions(dict[str, Messages]):
    """The unread messages of each session: a mapping that takes the place of Gradio's `LRUCache(2000)`, and
    of the queues that Gradio puts there.

    That one forgets the oldest session when the 2001st comes, whether or not it waits for something; the
    next message to it raises in the task that starts everyone's events, and every later join is answered
    with 503 "Queue is stopped." Here, no message raises, and who waits is kept. What is over is dropped at
    once when nothing of it is unread (Gradio never does), else after a while. This can go when Gradio itself
    forgets sessions that are over, and only these.
    """

    def __init__(
        self,
        demo: gr.Blocks,
        unread: float = UNREAD,
        most_unread: int = MOST_UNREAD,
        each: int = MOST_EACH,
        most: int = MOST,
    ) -> None:
        """
        Args:
            unread, most_unread: see UNREAD and MOST_UNREAD.
            each, most: bytes, as of `Unread`.
        """
        super().__init__()
        self._queue = queue_of(demo)
        self.messages = Unread(self._queue, self._drop, each, most)
        self._unread, self._most = unread, most_unread
        self._over: dict[str, tuple[int, float]] = {}  # unread messages, and since when there are that many
        self._looked, self._begun = time.monotonic(), 0

    def __missing__(self, session: str) -> asyncio.Queue[Any]:
        return asyncio.Queue()  # its client is gone: what is put here, nobody reads

    def __delitem__(self, session: str) -> None:
        self.messages.release(self.pop(session))
        self._over.pop(session, None)

    def __setitem__(self, session: str, messages: asyncio.Queue[Any]) -> None:
        self._begun += 1
        if self._begun >= self._most // 4 or time.monotonic() - self._looked >= 1:
            self.tidy()
        super().__setitem__(session, Messages(session, self.messages))

    def tidy(self) -> None:
        """Drop the sessions that are over, and all that Gradio keeps of them."""
        self._looked, self._begun = now, _ = time.monotonic(), 0
        self._free_slots()
        events = self._open_events()
        known = self._queue.pending_event_ids_session
        # Gradio's own clean-up of an event is left undone where its task is cancelled twice.
        _keep_only(self._queue.event_ids_to_events, events)
        if (app := self._queue.server_app) is not None:
            _keep_only(app.iterators, events)
            app.iterators_to_reset &= events
        for session, messages in list(self.items()):
            ids = known.get(session, set())
            if ids & events:
                self._over.pop(session, None)
            elif not ids and messages.empty():
                self._drop(session)
            else:
                left, since = self._over.get(session, (-1, now))
                self._over[session] = (left, since) if left == messages.qsize() else (messages.qsize(), now)
                if now - self._over[session][1] >= self._unread:
                    self._drop(session)
        self._drop_most()
        for session in known.keys() - self.keys():
            if not known[session] & events:
                del known[session]

    def _open_events(self) -> set[str]:
        """Return the ids of the events that wait or run."""
        return {event_id(event) for event in open_events(self._queue)}

    def _drop_most(self) -> None:
        """Drop sessions that are over until no more than the bound are left."""
        left: dict[str, list[str]] = {}
        for session in reversed(self._over):
            left.setdefault(self[session].person, []).append(session)
        for _ in range(len(self._over) - self._most):
            self._drop(max(left.values(), key=len).pop())

    def _drop(self, session: str) -> None:
        if session in self:
            del self[session]
        self._queue.pending_event_ids_session.pop(session, None)

    def _free_slots(self) -> None:
        """Free the places of events that were cancelled between being given a place and their task's first
        step: they would keep them, of which there are `max_threads`, and then none."""
        running = running_events(self._queue)
        for index, events in enumerate(self._queue.active_jobs):
            if events and event_id(events[0]) not in running:
                self._queue.active_jobs[index] = None
                self._queue.event_queue_per_concurrency_id[events[0].concurrency_id].current_concurrency -= 1


def _keep_only(entries: dict[str, Any], keys: set[str]) -> None:
    for key in entries.keys() - keys:
        del entries[key]


def paced_by_reader(
    function: Callable[..., AsyncIterator[Any]], unread: Unread
) -> Callable[..., AsyncIterator[Any]]:
    """Return an endpoint's function whose next value is made only when those before it have been read. Each
    value shows everything, so that leaving one out costs a reader no more than a step. It has to be done
    before Gradio has the value: Gradio sends most as the difference from the one before."""

    @functools.wraps(function)
    async def values(*given: Any, **named: Any) -> AsyncIterator[Any]:
        event = LocalContext.event_id.get()
        held, read = [], True
        async with contextlib.aclosing(function(*given, **named)) as made:  # type: ignore[type-var]
            async for value in made:
                read = event is None or await unread.room(event, READER_TIMEOUT if read else 0)
                held = [] if read else [value]
                if read:
                    yield value
        for value in held:
            yield value

    return values
