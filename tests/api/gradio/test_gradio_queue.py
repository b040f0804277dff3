"""Gradio's queue dies of a few thousand sessions, and forgets nobody; the app's own does neither."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio import queueing
from gradio.state_holder import SessionState
from gradio.utils import LRUCache

from api.gradio import queue
from api.gradio.patches import no_app
from api.gradio.queue import Sessions, harden_queue
from tests.support.rest import TIMEOUT

SMALL = 20
"""Sessions that the plain queue of these tests keeps: 2,000 would die the same way, later."""


class Served:
    """A page with one endpoint, `wait`, that answers once `gate` is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()

        async def wait(name: str) -> AsyncIterator[str]:  # type: ignore[misc]
            while not self.gate.is_set():
                await asyncio.sleep(0.01)
            yield f"for {name}"
            yield f"all for {name}"

        # The annotations as gr.api wants them: of one yield.
        wait.__annotations__ = {"name": str, "return": str}
        with no_app():
            with gr.Blocks() as self.demo:
                gr.api(wait, api_name="wait", concurrency_limit=1)
            self.demo.queue(api_open=False)
        self.queue: Any = self.demo._queue

    @contextlib.contextmanager
    def running(self) -> Iterator[Served]:
        _, url, _ = self.demo.launch(prevent_thread_lock=True, quiet=True, server_port=None)
        try:
            with httpx.Client(base_url=f"{url.rstrip('/')}/gradio_api", timeout=TIMEOUT) as self.http:
                yield self
        finally:
            self.gate.set()
            self.demo.close(verbose=False)

    def ask(self, name: str) -> httpx.Response:
        return self.http.post("/call/wait", json={"data": [name]})

    def join(self, session: str) -> httpx.Response:
        return self.http.post("/queue/join", json={"data": ["x"], "fn_index": 0, "session_hash": session})

    def read(self, event: str) -> str:
        return self.http.get(f"/call/wait/{event}").text


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        patch.setenv("GRADIO_ANALYTICS_MAX_EVENTS", "1")  # these two as app.py does
        patch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", f"{sys.maxsize}")
        yield


@pytest.fixture
def lasting() -> Iterator[Served]:
    served = Served()
    harden_queue(served.demo, unread=3600, most_unread=SMALL)
    with served.running():
        yield served


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_gradios_own_queue_is_stopped_for_ever_once_a_session_that_waits_is_forgotten() -> None:
    served = Served()
    assert served.queue.pending_messages_per_session.max_size == 2000
    served.queue.pending_messages_per_session = LRUCache(SMALL)
    with served.running():
        for number in range(SMALL + 3):
            assert served.ask(f"{number}").status_code == 200
        served.gate.set()
        until(lambda: served.ask("later").status_code >= 500)
        answer = served.ask("later")
        assert (answer.status_code, answer.json()) == (503, {"detail": "Queue is stopped."})
        assert served.http.get("../").status_code == 200


def test_more_sessions_than_are_kept_unread_wait_and_each_gets_its_answer(lasting: Served) -> None:
    events = [lasting.ask(f"{number}").json()["event_id"] for number in range(3 * SMALL)]
    assert len(lasting.queue.pending_messages_per_session) == len(events)
    lasting.gate.set()
    # In the order in which they are answered, so that no more than SMALL wait to be read.
    for number, event in enumerate(events):
        assert f'["all for {number}"]' in lasting.read(event)
    assert lasting.ask("later").status_code == 200


def test_a_session_whose_answer_was_read_is_dropped(lasting: Served) -> None:
    lasting.gate.set()
    for number in range(5):
        lasting.read(lasting.ask(f"{number}").json()["event_id"])
    lasting.queue.pending_messages_per_session.tidy()
    kept(lasting, 0)


def test_an_answer_that_is_read_twice_is_an_error_the_second_time(lasting: Served) -> None:
    lasting.gate.set()
    event = lasting.ask("once").json()["event_id"]
    assert "event: complete" in lasting.read(event)
    lasting.queue.pending_messages_per_session.tidy()
    # Gradio breaks the stream off after that; unread, it would have kept silent for ever.
    with lasting.http.stream("GET", f"/call/wait/{event}") as answer:
        assert next(answer.iter_lines()) == "event: error"


def test_answers_that_nobody_reads_are_bounded_and_the_newest_can_still_be_read(lasting: Served) -> None:
    lasting.gate.set()
    events = [lasting.ask(f"{number}").json()["event_id"] for number in range(4 * SMALL)]
    # The queue takes them in turn: once this one is answered, all are.
    assert 'data: ["all for the last"]' in lasting.read(lasting.ask("the last").json()["event_id"])
    lasting.queue.pending_messages_per_session.tidy()
    assert len(lasting.queue.pending_messages_per_session) <= SMALL
    assert f'data: ["all for {4 * SMALL - 1}"]' in lasting.read(events[-1])


def test_an_answer_that_nobody_reads_is_dropped_after_a_while() -> None:
    served = Served()
    harden_queue(served.demo, unread=0)
    served.gate.set()
    with served.running():
        served.ask("nobody")
        assert "complete" in served.read(served.ask("me").json()["event_id"])
        served.queue.pending_messages_per_session.tidy()
        kept(served, 0)


def test_a_message_to_a_client_that_has_gone_raises_nothing_and_is_kept_nowhere(lasting: Served) -> None:
    sessions = Sessions(lasting.demo)
    sessions["nobody"].put_nowait("a message")
    assert not sessions


def test_joins_that_are_cancelled_at_once_leave_nothing_and_the_queue_goes_on(
    lasting: Served,
) -> None:
    function = {"fn_index": 0}
    for number in range(150):
        event = lasting.join(f"session {number}").json()["event_id"]
        cancel = function | {"session_hash": f"session {number}", "event_id": event}
        assert lasting.http.post("/cancel", json=cancel).status_code == 200
    lasting.gate.set()
    assert "complete" in lasting.read(lasting.ask("later").json()["event_id"])
    lasting.queue.pending_messages_per_session.tidy()
    assert len(lasting.queue.pending_messages_per_session) <= SMALL
    kept(lasting, len(lasting.queue.pending_messages_per_session))


def test_a_slot_whose_event_was_cancelled_before_its_first_step_is_free_again(lasting: Served) -> None:
    def cancelled(function: Any, *values: Any) -> Any:
        # As when /cancel comes in the very turn of the event loop that made the task.
        task = asyncio.ensure_future(function(*values))
        task.cancel()
        return task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queueing, "run_coro_in_background", cancelled)
        lasting.ask("cancelled")
        until(lambda: any(lasting.queue.active_jobs))
    lasting.gate.set()
    event = lasting.ask("later").json()["event_id"]  # stuck behind it, for the limit is 1
    lasting.queue.pending_messages_per_session.tidy()
    assert "complete" in lasting.read(event)


def test_a_queue_with_nothing_in_it_sleeps_and_begins_what_comes_all_the_same() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "LONGEST_SLEEP", 3600.0)
        served = Served()
        harden_queue(served.demo)
        slept, sleep = [], served.queue.sleep_when_free

        def counted() -> Any:
            slept.append(1)
            return sleep()

        served.queue.sleep_when_free = counted
        served.gate.set()
        with served.running():
            for number in range(3):
                assert f'["all for {number}"]' in served.read(served.ask(f"{number}").json()["event_id"])
    assert len(slept) <= 4  # before the first, and after each


def test_what_waits_behind_others_is_begun_when_they_end(lasting: Served) -> None:
    events = [lasting.ask(f"{number}").json()["event_id"] for number in range(3)]  # the limit is 1
    until(lambda: any(lasting.queue.active_jobs))
    lasting.gate.set()
    assert all("event: complete" in lasting.read(event) for event in events)


def test_a_session_keeps_what_its_visitor_changed_and_not_how_every_widget_looks() -> None:
    with gr.Blocks() as demo:
        model = gr.Dropdown(["a", "b"], value="a")
        gr.Button().click(lambda: gr.update(choices=["c"], value="c"), None, model, api_name="change")
        gr.Button().click(lambda chosen: chosen, model, gr.Textbox(), api_name="chosen")
    demo.queue()
    harden_queue(demo)
    changed, other = SessionState(demo), SessionState(demo)
    assert not changed.config_values

    async def call(name: str, inputs: list[Any], state: SessionState) -> list[Any]:
        function = next(one for one in demo.fns.values() if one.api_name == name)
        return (await demo.process_api(function, inputs, state))["data"]

    asyncio.run(call("change", [], changed))
    assert asyncio.run(call("chosen", ["c"], changed)) == ["c"]
    with pytest.raises(gr.Error, match="not in the list of choices"):
        asyncio.run(call("chosen", ["c"], other))
    assert not changed.config_values


def kept(served: Served, most: int) -> None:
    """Asserts how much is kept of sessions and events, all told."""
    queue, app = served.queue, served.demo.app
    assert len(queue.pending_messages_per_session) <= most
    assert len(queue.pending_event_ids_session) <= most
    assert not queue.event_ids_to_events
    assert not app.iterators
    assert not app.iterators_to_reset
    assert len(queue.event_analytics) <= 1


def until(true: Any) -> None:
    for _ in range(6000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never became so")
