"""Strangers ask and never read: what they leave unread is bounded, of each and of all, and costs no answer of
anybody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import fastapi
import gradio as gr
from gradio.queueing import Event
from gradio.server_messages import (
    EstimationMessage,
    HeartbeatMessage,
    ProcessCompletedMessage,
    ProcessGeneratingMessage,
)

from api.gradio.patches import no_app
from api.gradio.queue import Sessions

MB = 10**6
MOST_EACH, MOST = 17 * MB, 68 * MB
"""Bytes of unread messages of one person and of all, as the owner is promised."""
PICTURE = "x" * 240_000
"""As large as a finished drawing's frame of the page."""


class Lobby:
    """Gradio's queue with our sessions, and whoever joins it."""

    def __init__(self, **bounds: int) -> None:
        with no_app():
            with gr.Blocks() as demo:
                gr.api(lambda: "", api_name="any")
            demo.queue()
        self.queue: Any = demo._queue
        self.sessions = self.queue.pending_messages_per_session = Sessions(demo, **bounds)
        self._fn = next(iter(demo.fns.values()))

    def join(self, session: str, address: str = "192.0.2.1") -> Event:
        """An event that runs."""
        scope = {"type": "http", "client": (address, 1), "headers": []}
        event = Event(session, self._fn, fastapi.Request(scope), None)
        if session not in self.sessions:
            self.sessions[session] = asyncio.Queue()  # as Gradio does
        self.queue.pending_event_ids_session.setdefault(session, set()).add(event._id)
        self.queue.event_ids_to_events[event._id] = event
        self.queue.active_jobs.append([event])
        return event

    def show(self, event: Event, picture: str = PICTURE) -> None:
        output = {"data": [{"picture": f"{picture}{event._id}"}]}  # a text of its own
        self.queue.send_message(event, ProcessGeneratingMessage(output=output, success=True))

    def end(self, event: Event, picture: str = PICTURE) -> None:
        output = {"data": [{"picture": f"{picture}{event._id}"}]}
        self.queue.send_message(event, ProcessCompletedMessage(output=output, success=True))
        self.queue.active_jobs.remove([event])
        self.queue.event_ids_to_events.pop(event._id)

    def read(self, session: str) -> list[Any]:
        """All that is unread of a session."""
        messages, found = self.sessions[session], []
        while not messages.empty():
            found.append(messages.get_nowait())
        return found

    def left(self) -> list[Any]:
        """All that is unread of everybody."""
        return [message for session in list(self.sessions) for message in self.read(session)]


def size(messages: list[Any]) -> int:
    return sum(len(message.model_dump_json()) for message in messages)


def shown(message: Any) -> bool:
    return message.success and "picture" in message.output["data"][0]


def test_answers_that_one_person_never_reads_are_bounded_and_the_newest_is_there() -> None:
    lobby = Lobby()
    events = [lobby.join("stranger") for _ in range(700)]
    for event in events:
        lobby.end(event)
    left = lobby.left()
    assert size(left) < MOST_EACH
    (newest,) = (message for message in left if message.event_id == events[-1]._id)
    assert shown(newest)


def test_many_sessions_of_one_person_have_one_share() -> None:
    lobby = Lobby()
    for number in range(300):
        lobby.end(lobby.join(f"stranger {number}"))
    assert size(lobby.left()) < MOST_EACH


def test_an_answer_that_was_let_go_is_an_error_in_words_and_never_a_hang() -> None:
    lobby = Lobby()
    events = [lobby.join("stranger") for _ in range(200)]
    for event in events:
        lobby.show(event)
        lobby.end(event)
    ends = {message.event_id: message for message in lobby.left() if message.msg == "process_completed"}
    assert len(ends) == len(events)
    first, last = ends[events[0]._id], ends[events[-1]._id]
    assert (first.success, last.success) == (False, True)
    assert "Ask again" in first.output["error"]


def test_an_answer_that_still_runs_is_let_go_and_says_no_more() -> None:
    lobby = Lobby()
    first = lobby.join("first")
    lobby.show(first)
    for _ in range(100):
        lobby.end(lobby.join("stranger"))
    lobby.show(first)  # a difference from what was let go
    assert not first.alive
    assert [(message.msg, message.success) for message in lobby.read("first")] == [
        ("process_completed", False)
    ]


def test_whoever_reads_is_not_the_victim_of_those_of_the_same_address_who_do_not() -> None:
    lobby = Lobby()
    reader, seen = lobby.join("reader"), 0
    for _ in range(200):
        lobby.show(reader)
        lobby.end(lobby.join("stranger"))
        seen += sum(map(shown, lobby.read("reader")))
    assert reader.alive
    assert seen == 200


def test_strangers_who_never_read_are_bounded_together_and_take_no_share_of_anybody_else() -> None:
    lobby = Lobby()
    lobby.end(lobby.join("late", "198.51.100.1"))
    for number in range(1000):
        lobby.end(lobby.join(f"stranger {number % 50}", f"203.0.113.{number % 50}"))
    (late,) = lobby.read("late")
    assert shown(late)
    assert size(lobby.left()) < MOST


def test_strangers_sessions_that_are_over_push_out_nobody_elses() -> None:
    lobby = Lobby()
    lobby.end(lobby.join("late", "198.51.100.1"), "a picture")
    for number in range(1000):
        lobby.end(lobby.join(f"stranger {number}"), "a picture")
    lobby.sessions.tidy()
    assert len(lobby.sessions) <= 300
    (late,) = lobby.read("late")
    assert shown(late)


def test_the_words_that_stand_for_what_was_let_go_are_bounded_too() -> None:
    lobby = Lobby()
    for _ in range(20_000):
        lobby.end(lobby.join("stranger"), "a picture")
    left = lobby.left()
    assert size(left) < MOST_EACH
    assert len(left) < 19_000
    assert len(lobby.queue.pending_event_ids_session["stranger"]) == len(left)
    assert shown(left[-1])


def test_what_waits_and_what_beats_is_unread_once() -> None:
    lobby = Lobby()
    event = lobby.join("stranger")
    for rank in range(1000):
        lobby.queue.send_message(event, EstimationMessage(rank=rank, queue_size=1000))
        lobby.sessions["stranger"].put_nowait(HeartbeatMessage())
    (left,) = lobby.left()
    assert left.rank == 999
    lobby.sessions["stranger"].put_nowait(HeartbeatMessage())
    assert len(lobby.left()) == 1  # nothing is unread: it tells its reader's connection from a dead one


def test_an_answer_ends_once_however_often_it_is_cancelled() -> None:
    lobby = Lobby()
    event = lobby.join("stranger")
    for _ in range(1000):
        end = ProcessCompletedMessage(output={}, success=True, event_id=event._id)
        lobby.sessions["stranger"].put_nowait(end)
    assert len(lobby.left()) == 1


def test_what_is_read_or_dropped_is_counted_no_longer() -> None:
    lobby = Lobby()
    for number in range(20):
        event = lobby.join(f"{number}")
        lobby.show(event)
        lobby.end(event)
    lobby.read("0")
    orphan = lobby.sessions["1"]
    del lobby.sessions["1"]  # as Gradio does where its reader goes
    assert orphan.empty()
    assert lobby.sessions.messages.bytes > 0
    for number in range(2, 20):
        lobby.read(f"{number}")
    assert lobby.sessions.messages.bytes == 0
