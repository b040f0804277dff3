"""The messages of Gradio's queue (6.31) that nobody has read yet: how many bytes of them are kept, of one
event, of one person and of all, and what becomes of the rest. Which sessions there are, queue.py says.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gradio.queueing import Event, Queue
from gradio.server_messages import EstimationMessage, HeartbeatMessage, ProcessCompletedMessage

from api.visitor import owner_of

MESSAGE_COST = 1000
"""Bytes that a message costs beside what it says: the objects that it is made of."""
MOST_AHEAD = 256 * 1024
"""Bytes of an event's unread messages from which on its next one waits: the whole of a small drawing, one or
two steps of the largest."""
READER_TIMEOUT = 10.0
"""Seconds for which it waits without anything being read; after that it is skipped, until something is read
or it is the last: an event whose client doesn't read ends with its drawing, and who comes late gets that."""
CHECK_INTERVAL = 1.0
"""Seconds between two looks meanwhile at whether its client is still there."""
MOST_EACH = 16 * 2**20
"""Bytes of unread messages of one person."""
MOST = 64 * 2**20
"""Bytes of everybody's."""
DISCARDED = (
    "Nobody read this answer, and answers that nobody reads are kept only up to a bound: it was let go. Ask "
    "again, and read the answer while it is made; a drawing that went on is followed by its id, with /job."
)
MOST_DISCARDED = 1000
"""Of one person's answers, so many are told so; those that were let go before are unknown from then on."""
_PERSON = "stepwise.person"
"""Of an ASGI scope: who asks, so that it isn't looked up again for every message."""


def person_of(event: Event) -> str:
    """Return whose event this is."""
    scope = event.request.scope
    if _PERSON not in scope:
        scope[_PERSON] = owner_of(event.request).person
    return scope[_PERSON]


@dataclass(eq=False, slots=True)
class Entry:
    """One unread message. stream: its event's; None where it belongs to no event."""

    message: Any
    stream: Stream | None
    bytes: int = MESSAGE_COST


@dataclass(eq=False)
class Stream:
    """One event's unread messages, in their order. over: the last one is among them. discarded: they were
    replaced by DISCARDED. estimation: the one among them that says how long the event waits. read: set each
    time that one of them is read."""

    event: str
    person: str
    messages: Messages
    entries: deque[Entry] = field(default_factory=deque)
    bytes: int = 0
    over: bool = False
    discarded: bool = False
    estimation: EstimationMessage | None = None
    read: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Share:
    """What one person has left unread: the streams that are kept, and those that were discarded, each in the
    order in which something was last read of it."""

    bytes: int = 0
    kept: dict[str, Stream] = field(default_factory=dict)
    discarded: dict[str, Stream] = field(default_factory=dict)


class Messages(asyncio.Queue[Any]):
    """A session's unread messages. Gradio puts them in without waiting, so that what is too much is left out
    here. `person` is whose the first of them was."""

    def __init__(self, session: str, unread: Unread) -> None:
        self.session, self.person = session, ""
        self.streams: dict[str, Stream] = {}
        self._unread = unread
        super().__init__()

    def _init(self, maxsize: int) -> None:
        self._queue = self._entries = deque[Entry]()  # asyncio looks into it, whether there are any

    def _put(self, message: Any) -> None:
        stream = self._unread.stream_of(self, message)
        if stream is None:
            # A heartbeat: what hasn't been read shows already that somebody is there.
            if not isinstance(message, HeartbeatMessage) or self.empty():
                self._entries.append(Entry(message, None))
            return
        if stream.over:
            return  # its reader goes with the end that is there
        if isinstance(message, EstimationMessage):
            if (known := stream.estimation) is not None:
                known.rank, known.rank_eta = message.rank, message.rank_eta
                known.queue_size = message.queue_size
                return
            stream.estimation = message
        stream.over = isinstance(message, ProcessCompletedMessage)
        entry = Entry(message, stream, MESSAGE_COST + memory_size(getattr(message, "output", None)))
        self._entries.append(entry)
        self._unread.add(stream, entry)

    def _get(self) -> Any:
        entry = self._entries.popleft()
        if (stream := entry.stream) is not None:
            if stream.estimation is entry.message:
                stream.estimation = None
            self._unread.take(stream)
        return entry.message

    def remove(self, entry: Entry) -> None:
        self._entries.remove(entry)  # what is let go is among the first

    def clear(self) -> None:
        self._entries.clear()
        self.streams.clear()


class Unread:
    """Everybody's unread messages, counted in bytes. Where they are too many, the stream that was read
    longest ago goes first: one's own, or where everybody's together are too many, that of whoever has most.
    Its reader, should one come, is told."""

    def __init__(self, queue: Queue, forget: Callable[[str], None], each: int, most: int) -> None:
        """
        Args:
            forget: drops a session of which nothing is left.
            each, most: as MOST_EACH and MOST.
        """
        self._queue, self._forget_session = queue, forget
        self._each, self._most = each, most
        self._shares: dict[str, Share] = {}
        self.bytes = 0

    def stream_of(self, messages: Messages, message: Any) -> Stream | None:
        """Return the stream that this message belongs to, or None if it belongs to no event, as a
        heartbeat."""
        if message.event_id is None:
            return None
        if message.event_id not in messages.streams:
            event = self._queue.event_ids_to_events.get(message.event_id)
            person = person_of(event) if event else messages.person  # /cancel has forgotten the event already
            messages.person = messages.person or person
            messages.streams[message.event_id] = Stream(message.event_id, person, messages)
        return messages.streams[message.event_id]

    def add(self, stream: Stream, entry: Entry) -> None:
        share = self._shares.setdefault(stream.person, Share())
        share.kept.setdefault(stream.event, stream)
        stream.entries.append(entry)
        self._count(stream, entry.bytes)
        while share.bytes > self._each:
            self._discard_one(share)
        while self.bytes > self._most:
            self._discard_one(max(self._shares.values(), key=lambda one: one.bytes))

    def take(self, stream: Stream) -> None:
        """Count that the first message of this stream was read."""
        entry = stream.entries.popleft()
        among = self._streams_with(stream)
        del among[stream.event]
        if stream.entries:
            among[stream.event] = stream  # the last in the order
        else:
            del stream.messages.streams[stream.event]
        self._count(stream, -entry.bytes)
        stream.read.set()

    def release(self, messages: Messages) -> None:
        """Count this session's messages no longer; whoever still waits for them gets none."""
        for stream in list(messages.streams.values()):
            del self._streams_with(stream)[stream.event]
            self._count(stream, -stream.bytes)
            stream.read.set()
        messages.clear()

    def _streams_with(self, stream: Stream) -> dict[str, Stream]:
        share = self._shares[stream.person]
        return share.discarded if stream.discarded else share.kept

    def _count(self, stream: Stream, size: int) -> None:
        share = self._shares.setdefault(stream.person, Share())
        stream.bytes += size
        share.bytes += size
        self.bytes += size
        if not share.kept and not share.discarded:
            del self._shares[stream.person]

    def _discard_one(self, share: Share) -> None:
        if share.kept and len(share.discarded) < MOST_DISCARDED:
            self._replace_with_error(share, next(iter(share.kept.values())))
        else:
            self._forget(next(iter(share.discarded.values())))

    def _replace_with_error(self, share: Share, stream: Stream) -> None:
        """Put one error in the place of all of this stream's messages. An event that still runs ends with its
        next step."""
        if (event := self._queue.event_ids_to_events.get(stream.event)) is not None:
            event.alive = False
        output = {"error": DISCARDED, "title": "Error", "duration": 10, "visible": True}
        end = ProcessCompletedMessage(output=output, title="Error", success=False, event_id=stream.event)
        while len(stream.entries) > 1:
            stream.messages.remove(stream.entries.pop())
        stream.entries[0].message, stream.entries[0].bytes = end, MESSAGE_COST
        del share.kept[stream.event]
        share.discarded[stream.event] = stream
        stream.over = stream.discarded = True
        stream.estimation = None
        self._count(stream, MESSAGE_COST - stream.bytes)
        stream.read.set()

    def _forget(self, stream: Stream) -> None:
        """Forget a discarded stream, where there are too many even of those: its reader is refused, as of an
        unknown call."""
        messages = stream.messages
        messages.remove(stream.entries[0])
        del self._streams_with(stream)[stream.event]
        del messages.streams[stream.event]
        self._count(stream, -stream.bytes)
        calls = self._queue.pending_event_ids_session.get(messages.session, set())
        calls.discard(stream.event)
        if not calls:
            self._forget_session(messages.session)

    async def room(self, event: str, seconds: float) -> bool:
        """Wait until so little of this event is unread that its next message may be made, and return whether
        that came in time.

        Args:
            seconds: how long to wait for that, from the last time that one of its messages was read.
        """
        until = time.monotonic() + seconds
        while (stream := self._find(event)) is not None and stream.bytes >= MOST_AHEAD and not stream.over:
            if (left := until - time.monotonic()) <= 0:
                return False
            stream.read.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stream.read.wait(), min(left, CHECK_INTERVAL))
                until = time.monotonic() + seconds
        return True

    def _find(self, event: str) -> Stream | None:
        known = self._queue.event_ids_to_events.get(event)
        if known is None or not known.alive:
            return None
        messages: Any = self._queue.pending_messages_per_session.get(known.session_hash)
        return messages.streams.get(event) if messages is not None else None


def memory_size(value: Any) -> int:
    """Return about how many bytes of memory JSON data takes: a text that is in it twice counts once."""
    found, seen = 0, set()
    left = [value]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        found += sys.getsizeof(one)
        if isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
    return found
