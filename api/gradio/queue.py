"""What Gradio's queue and sessions (6.31) do that a server can't last with, and the remedy for each. All of
them were read in its source or met in a test; each says what must change in Gradio for it to go.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gradio import queueing
from gradio.state_holder import SessionState

from api.gradio.joins import open_events, share_calls
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
_MARK = "<gradio-sep>"


def make_queue_last(demo: gr.Blocks, unread: float = UNREAD, most_unread: int = MOST_UNREAD) -> None:
    """Makes this page's queue last. Called after `demo.queue`, before `demo.launch`.

    Args:
        unread, most_unread: see UNREAD and MOST_UNREAD.
    """
    queue = demo._queue
    sessions = Sessions(demo, unread, most_unread)
    queue.pending_messages_per_session = sessions  # type: ignore[assignment]  # it takes any mapping
    for function in demo.fns.values():
        if inspect.isasyncgenfunction(function.fn):
            function.fn = in_step(function.fn, sessions.messages)
    share_calls(queue)
    _sleep_until_asked(queue)
    # After each event it makes a pandas table of the last 10,000, for a dashboard that is off.
    queue.ANALYTICS_MAX_EVENTS = 1
    queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize
    queueing.set_task_name = _set_task_name  # type: ignore[assignment]
    SessionState.__init__ = _begin_session  # type: ignore[assignment, method-assign]


def _sleep_until_asked(queue: queueing.Queue) -> None:
    """Gradio's queue looks for work 1,000 times a second, and 100 times for news of progress bars, which this
    page has none of: 3 % of a core at rest, and as many interruptions of a drawing. Here it sleeps until
    somebody comes: `sleep_when_free` is no number, but something that `_sleep` can wait for."""
    push = queue.push
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

    async def push_and_wake(*values: Any, **named: Any) -> Any:
        answer = await push(*values, **named)
        wake()
        return answer

    async def no_progress() -> None:
        pass

    queue.sleep_when_free = until_asked  # type: ignore[assignment]
    queue.push = push_and_wake  # type: ignore[method-assign]
    queue.start_progress_updates = no_progress  # type: ignore[method-assign]
    queueing.asyncio = _ASYNCIO  # type: ignore[assignment]


async def _sleep(seconds: float | Callable[[], Awaitable[None]]) -> None:
    await (seconds() if callable(seconds) else asyncio.sleep(seconds))


_ASYNCIO = SimpleNamespace(**{**vars(asyncio), "sleep": _sleep})
"""What Gradio's queue takes for asyncio."""


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
        self.messages = Unread(demo._queue, self._drop, each, most)
        self._demo, self._queue = demo, demo._queue
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
        return {event._id for event in open_events(self._queue)}

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
        alive = {
            task.get_name().rpartition(_MARK)[2] for task in self._queue._asyncio_tasks if not task.done()
        }
        for index, events in enumerate(self._queue.active_jobs):
            if events and events[0]._id not in alive:
                self._queue.active_jobs[index] = None
                self._queue.event_queue_per_concurrency_id[events[0].concurrency_id].current_concurrency -= 1


def _keep(entries: dict[str, Any], keys: set[str]) -> None:
    for key in entries.keys() - keys:
        del entries[key]


_named_by_gradio = queueing.set_task_name


def _set_task_name(task: Any, session: str, fn: int, event: str, batch: bool) -> None:
    """Gradio splits the name again at its mark. A client that has the mark in its session's name made every
    /cancel raise, whosever it was, for as long as its own event ran."""
    _named_by_gradio(task, session.replace(_MARK, ""), fn, event, batch)


class _NotKept(dict[int, Any]):
    """Where Gradio would note how each widget looks to a session."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: int) -> dict[str, Any]:
        return {}

    def __setitem__(self, key: int, value: Any) -> None:
        pass


_begun_by_gradio = SessionState.__init__


def _begin_session(state: SessionState, blocks: gr.Blocks) -> None:
    """A call begins two sessions, and Gradio writes down for each how all widgets look: 9 ms and 80 KB, for
    deep links, which are closed here (routes.py)."""
    no_widgets: Any = SimpleNamespace(default_config=blocks.default_config, blocks=())
    _begun_by_gradio(state, no_widgets)
    state.config_values = _NotKept()
