"""All that Stepwise replaces in Gradio (6.31.0), or uses of it though Gradio promises nothing about it.

Each function says what Gradio does, why it can't stay so here, and what must change in Gradio for the
function to go. What the replacements do stands in the modules that call these functions.
docs/library-patches.md lists all; tests/contracts/test_gradio.py fails when Gradio's side of one has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import Any

from gradio import blocks as gradio_blocks
from gradio import http_server, processing_utils, queueing, routes
from gradio.block_function import BlockFunction
from gradio.blocks import Block, Blocks
from gradio.queueing import Event, Queue
from gradio.state_holder import SessionState

Push = Callable[..., Awaitable[Any]]
"""`Queue.push`: takes a call's `body`, its `request` and the `username`; gives whether it succeeded, the
event's id or why not, and a word for that."""
TASK_NAME_SEPARATOR = "<gradio-sep>"
"""What Gradio puts between a session and an event in the name of the event's task, and splits the name at. A
session that has it in its own name makes every /cancel fail, whosever it is, while its event runs."""


# What is read


def queue_of(blocks: Blocks) -> Queue:
    """Return the page's queue. Gradio has no public name for it."""
    return blocks._queue


def event_id(event: Event) -> str:
    """Return the id by which clients know this event. Gradio has no public name for it."""
    return event._id


def function_id(function: BlockFunction) -> int:
    """Return the number by which the page calls this function (`fn_index`). Gradio has no public name for
    it."""
    return function._id


def open_events(queue: Queue) -> Iterator[Event]:
    """Yield the events that wait or run. Gradio has no function for it."""
    for waiting in queue.event_queue_per_concurrency_id.values():
        yield from waiting.queue
    for events in queue.active_jobs:
        yield from events or ()


def running_events(queue: Queue) -> set[str]:
    """Return the ids of the events whose tasks aren't done. Gradio has no function for it."""
    tasks = (task.get_name() for task in queue._asyncio_tasks if not task.done())
    return {name.rpartition(TASK_NAME_SEPARATOR)[2] for name in tasks}


# While a page is made


@contextmanager
def no_app() -> Iterator[None]:
    """Have Gradio make no app meanwhile; of a page that is made so, `launch` makes the one that serves it.

    Gradio makes one when a page begins, when it ends and when it is given a queue, each instead of the one
    before: a hundred routes, in 0.06 s of CPU. Can go when Gradio leaves that to `launch`.
    """
    made = gradio_blocks.App
    gradio_blocks.App = _NO_APP  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        gradio_blocks.App = made  # type: ignore[misc]


_NO_APP = SimpleNamespace(create_app=lambda *_, **__: None)


# The queue


def replace_messages(queue: Queue, messages: MutableMapping[str, Any]) -> None:
    """Have the queue keep each session's unread messages in this mapping.

    Gradio's own, an `LRUCache(2000)`, forgets the oldest session when the 2001st comes, whether or not it
    waits for something. The next message to it raises in the task that starts everyone's events, and every
    later call is answered with 503 "Queue is stopped." Can go when Gradio forgets sessions that are over, and
    only these, and bounds what nobody reads.
    """
    queue.pending_messages_per_session = messages  # type: ignore[assignment]  # any mapping will do


def wrap_push(queue: Queue, wrap: Callable[[Push], Push]) -> None:
    """Put something around how a call joins the queue. Gradio's own bound (`max_size`) is one for all callers
    together, and nothing is told when a call comes. Can go when Gradio has a hook there."""
    queue.push = wrap(queue.push)  # type: ignore[assignment, method-assign]


def replace_sleep(queue: Queue, sleep: Callable[[], Awaitable[None]]) -> None:
    """Have the queue sleep by awaiting this between two looks for work.

    Gradio sleeps `sleep_when_free` seconds, a thousandth. A larger number trades the processor's rest for
    everyone's latency; waking the queue when a call comes needs neither. Can go when Gradio's queue is woken
    by what comes.
    """
    queue.sleep_when_free = sleep  # type: ignore[assignment]  # `_sleep` awaits it
    queueing.asyncio = _ASYNCIO  # type: ignore[assignment]


async def _sleep(seconds: float | Callable[[], Awaitable[None]]) -> None:
    await (seconds() if callable(seconds) else asyncio.sleep(seconds))


_ASYNCIO = SimpleNamespace(**{**vars(asyncio), "sleep": _sleep})
"""What Gradio's queue takes for asyncio."""


def stop_progress_updates(queue: Queue) -> None:
    """Have the queue not look for news of `gr.Progress`, which no endpoint here has: Gradio looks 100 times a
    second. Can go when Gradio looks only where there is such news."""

    async def nothing() -> None:
        pass

    queue.start_progress_updates = nothing  # type: ignore[method-assign]


# Sessions


class _NothingKept(dict[int, Any]):
    """A mapping that has every key and keeps nothing."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: int) -> dict[str, Any]:
        return {}

    def __setitem__(self, key: int, value: Any) -> None:
        pass


_begin_as_gradio = SessionState.__init__


def _begin_session(state: SessionState, blocks: Blocks) -> None:
    no_widgets: Any = SimpleNamespace(default_config=blocks.default_config, blocks=())
    _begin_as_gradio(state, no_widgets)
    state.config_values = _NothingKept()


def keep_no_widget_configs() -> None:
    """Have new sessions not write down how every widget looks. A call begins two sessions, and Gradio takes 9
    ms and 80 KB in each for that, for deep links, which aren't served here. Can go when Gradio does it only
    for pages that have them."""
    SessionState.__init__ = _begin_session  # type: ignore[assignment, method-assign]


# Files


def refuse_file_addresses(refuse: Callable[..., Awaitable[Any]]) -> None:
    """Have Gradio call this in place of what downloads a file. It takes {"path": "http…", "meta": …} for a
    file in any endpoint's parameters, and downloads it, of any length, before it looks at anything else. Can
    go when Gradio downloads only for components that take files."""
    for name in ("async_ssrf_protected_get", "async_ssrf_protected_download"):
        getattr(processing_utils, name)  # there to be replaced
        setattr(processing_utils, name, refuse)


class _NoFiles(set[str]):
    """A set that stays empty."""

    def add(self, _: str) -> None: ...


def keep_file_paths(block: Block, folder: str) -> None:
    """Have Gradio pass on the paths of files below this folder as they are in this output. It copies files
    that lie elsewhere than in the block's own folder, and keeps a list of them for ever, to delete them.
    Paths below the folder must be among launch's `allowed_paths`. Can go when an output may name files by
    their address."""
    block.GRADIO_CACHE, block.temp_files = folder, _NoFiles()


# What an endpoint says of itself


def describe_parameter(block: Any, name: str, words: str, example: Callable[[str], Any]) -> None:
    """Give a parameter of `gr.api` its name, words and example; `gr.api` calls it 1st, 2nd, … and shows
    "...", which its command-line snippet sends even where there is a default. Can go when `gr.api` takes
    these."""
    block.label = name
    block._api_info = {**block._api_info, "additional_description": words}
    block.example_payload = partial(example, name)


def replace_function(function: BlockFunction, replacement: Callable[..., Any]) -> None:
    """Have this endpoint call another function, which has the signature of its own. The endpoints are made
    before the queue that the replacement has to know. Can go when an endpoint is told how much of its answer
    is unread."""
    function.fn = replacement


def set_validator(function: BlockFunction, validator: Callable[..., Any]) -> None:
    """Have this look at an endpoint's parameters before the call waits in the queue. Event listeners have a
    parameter for it; can go when `gr.api` has it too."""
    function.validator = validator


def pass_value_through(component: Any) -> None:
    """Have this widget hand on what a client sent, to be refused in our own words. Gradio's own `preprocess`
    refuses in its words. A subclass would do, but Gradio writes a .pyi file beside the module of each. Can go
    when it doesn't."""
    component.preprocess = lambda payload: payload


_API_INFO: ContextVar[dict[str, Any] | None] = ContextVar("this request's /info", default=None)


class _OfThisRequest:
    """An attribute that keeps its value for one request."""

    def __get__(self, app: Any, kind: type) -> dict[str, Any] | None:
        return _API_INFO.get()

    def __set__(self, app: Any, info: dict[str, Any] | None) -> None:
        _API_INFO.set(info)


def make_api_info_for_each_request() -> None:
    """Have the API page's snippets made anew for each request. Gradio keeps them with the address of whoever
    asked first, be it one within a proxy or what a forged X-Forwarded-Host said, and gives them to everyone.
    Can go when it keeps none."""
    routes.App.api_info = _OfThisRequest()  # type: ignore[assignment]


def edit_bash_snippets(edit: Callable[[str], str]) -> None:
    """Have the API page's snippets for bash pass through this function. Gradio's pipe the event's id into
    `read`, which only zsh runs in the shell that goes on: elsewhere the id stays empty. Can go when they no
    longer say `| read`."""
    generate = routes.generate_code_snippets
    if getattr(generate, "edited", False):
        return

    def edited(*args: Any, **kwargs: Any) -> dict[str, str]:
        snippets = generate(*args, **kwargs)
        snippets["bash"] = edit(snippets["bash"])
        return snippets

    edited.edited = True  # type: ignore[attr-defined]
    routes.generate_code_snippets = edited


# The web server


def replace_start_server(start: Callable[..., tuple[str, int, str, http_server.Server]]) -> None:
    """Have `Blocks.launch` start the web server with this function, which is given the app first. Gradio's
    own looks only at IPv4, asks 127.0.0.1 whether the port of another address is free, takes the next port
    where the owner's is taken, and takes no configuration of uvicorn's. `mount_gradio_app` would, but on
    ZeroGPU `spaces` starts its own part in `launch` (docs/library-patches.md). Can go when `launch` takes a
    `uvicorn.Config` and sockets."""
    http_server.start_server = start
