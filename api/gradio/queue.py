"""What Gradio's queue and sessions (6.31) do that a server can't last with, and the remedy for each. All of
them were read in its source or met in a test; each says what must change in Gradio for it to go.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any

from gradio.queueing import Queue

from api.gradio.joins import share_calls
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
from api.gradio.unread import MOST, MOST_EACH, Messages, Unread, in_step

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
ASLEEP = 1.0
"""Seconds that the queue sleeps at a time while nothing waits in it: as late as this it notices what came
another way than by `push`, of which Gradio has none."""
FULL = 0.02
"""Seconds until it looks again whether what waits in it may begin."""


def make_queue_last(demo: gr.Blocks, unread: float = UNREAD, most_unread: int = MOST_UNREAD) -> None:
    """Makes this page's queue last. Called after `demo.queue`, before `demo.launch`.

    Args:
        unread, most_unread: see UNREAD and MOST_UNREAD.
    """
    queue = queue_of(demo)
    sessions = Sessions(demo, unread, most_unread)
    replace_messages(queue, sessions)
    for function in demo.fns.values():
        if inspect.isasyncgenfunction(function.fn):
            replace_function(function, in_step(function.fn, sessions.messages))
    share_calls(queue)
    _sleep_until_asked(queue)
    stop_progress_updates(queue)
    keep_no_widget_configs()


def _sleep_until_asked(queue: Queue) -> None:
    """Gradio's queue looks for work 1,000 times a second: with its looks for news of progress bars 3 % of a
    core at rest, and as many interruptions of a drawing. Here it sleeps until somebody comes. A number in
    place of its thousandth of a second (`sleep_when_free`) would make everyone wait for it: see
    bench/README.md."""
    asked: asyncio.Future[None] | None = None

    def wake() -> None:
        if asked is not None and not asked.done():
            asked.set_result(None)

    async def until_asked() -> None:
        nonlocal asked
        loop = asyncio.get_running_loop()
        asked = loop.create_future()
        timer = loop.call_later(FULL if len(queue) else ASLEEP, wake)
        try:
            await asked
        finally:
            timer.cancel()

    def waking(push: Push) -> Push:
        async def push_and_wake(*values: Any, **named: Any) -> Any:
            answer = await push(*values, **named)
            wake()
            return answer

        return push_and_wake

    replace_sleep(queue, until_asked)
    wrap_push(queue, waking)


class Sessions(dict[str, Messages]):
    """Each session's messages that are still to be sent: takes the place of Gradio's `LRUCache(2000)`, and
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
        """Drops what is over, wherever Gradio keeps it."""
        self._looked, self._begun = now, _ = time.monotonic(), 0
        self._free_slots()
        events = self._live()
        known = self._queue.pending_event_ids_session
        # Gradio's own clean-up of an event is left undone where its task is cancelled twice.
        _keep(self._queue.event_ids_to_events, events)
        if (app := self._queue.server_app) is not None:
            _keep(app.iterators, events)
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

    def _live(self) -> set[str]:
        """The ids of the events that wait or run."""
        return {event_id(event) for event in open_events(self._queue)}

    def _drop_most(self) -> None:
        """Down to as many of those that are over as may be."""
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
        """An event that is cancelled between being given a slot and its task's first step keeps the slot: of
        these there are `max_threads`, and then none."""
        running = running_events(self._queue)
        for index, events in enumerate(self._queue.active_jobs):
            if events and event_id(events[0]) not in running:
                self._queue.active_jobs[index] = None
                self._queue.event_queue_per_concurrency_id[events[0].concurrency_id].current_concurrency -= 1


def _keep(entries: dict[str, Any], keys: set[str]) -> None:
    for key in entries.keys() - keys:
        del entries[key]
