"""What may be asked of Gradio's own routes (6.31), in a body above all. FastAPI and Gradio read it one after
the other, and answer much of what they can't use with 500 and a traceback in the log. Here it is read first,
and refused; what passes is given on as it came.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import gradio as gr
from gradio.blocks import BlockFunction, Blocks
from gradio.route_utils import API_PREFIX
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers, QueryParams
from starlette.routing import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from api.gradio.patches import function_id
from api.gradio.refusals import ENDPOINTS, no_endpoint
from api.guard.access import Refuse, under
from api.guard.bodies import again
from api.openai.routes import PREFIX
from pipeline.errors import quoted

MOST_VALUES = 10_000
"""In one body, all lists and objects counted: a call has ten."""
MOST_DEPTH = 500
"""Of lists and objects in one another; Gradio goes through them by recursion: Python allows 1,000 calls."""
NO_FILES = "Stepwise takes no files and fetches none: send text and numbers."

_JSON = re.compile(r"application/([^;]*\+)?json\s*(;|$)", re.IGNORECASE)
_NAMED = re.compile(rf"{API_PREFIX}/call/v2/([^/]+)/?")
_CALL = re.compile(rf"{API_PREFIX}/call/([^/]*)/?")
_RUN = re.compile(rf"{API_PREFIX}/(?:run|api)/([^/]*)/?")
_JOIN = f"{API_PREFIX}/queue/join"
NO_PATH = "There is nothing at this address: it is too long, or has a character that no address here has."
_NO_PATH = re.compile(r"[\x00-\x1f\x7f]")
"""Starlette (1.10) lets a line break follow each route's path; httpx makes no address of such a path."""
_FILES = ("/static", "/assets", "/svelte")
LONGEST_PATH, LONGEST_NAME = 1024, 255
"""Bytes of a file's path, and of a name in it: on Linux (255 of a name, 4,096 of a path) and macOS."""
NO_PAGE = "This app has one page, and none of that name."
_NO_TEXT = re.compile("[\ud800-\udfff]")


class NotMeant(Exception):
    """A body that no route can use: a status, and why in words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class StrictBodies:
    """Gradio's app, which gets the bodies that it can read. Stands behind BoundBody, which gives it each as
    one message."""

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = get_route_path(scope)
        no_path = (_NO_PATH.search(path) and not under(path, PREFIX)) or _is_no_file(path)
        if no_path or (path == "/" and not _is_page(scope)):
            await self._refuse(404, NO_PATH if no_path else NO_PAGE, {})(scope, receive, send)
            return
        if scope["method"] != "POST" or not under(path, API_PREFIX):  # beside them is /login alone, a form
            await self._app(scope, receive, send)
            return
        message = await receive()
        if message["type"] == "http.request":
            kind = Headers(scope=scope).get("content-type", "")
            try:
                check(path, kind, message.get("body", b""), scope["app"].get_blocks())
            except NotMeant as wrong:
                await self._refuse(wrong.status, str(wrong), {})(scope, receive, send)
                return

        await self._app(scope, again(message, receive), send)


def _is_no_file(path: str) -> bool:
    """Whether Gradio would look for a file that no disk can have: it fails at the disk's error."""
    if not any(under(path, one) for one in _FILES):
        return False
    names = path.encode(errors="surrogatepass").split(b"/")
    return sum(map(len, names)) > LONGEST_PATH or max(map(len, names)) > LONGEST_NAME


def _is_page(scope: Scope) -> bool:
    """Whether the page that is asked for is there; Gradio takes its name also from the query."""
    names = {page[0] for page in scope["app"].get_blocks().pages}
    return names.issuperset(QueryParams(scope["query_string"]).getlist("page"))


def check(path: str, kind: str, body: bytes, blocks: Blocks) -> None:
    """Whether Gradio can read this body.

    Args:
        path: of the route, as the app knows it. kind: the request's Content-Type. blocks: the page.

    Raises:
        NotMeant: it can't.
    """
    if not _JSON.match(kind.strip()):
        if body:
            raise NotMeant(415, "The body must be JSON, and say so: send “Content-Type: application/json”.")
        return  # what a route says that wants one
    if (call := _NAMED.fullmatch(path)) is not None:
        _endpoint(call[1])
        _parameters(_object(body).values())
    elif (call := _CALL.fullmatch(path)) is not None:
        _endpoint(name := call[1])
        asked = _shaped(_Call, body)
        _values(_function(blocks, lambda one: one.api_name == name), asked.data)
    elif (call := _RUN.fullmatch(path)) is not None:
        asked = _shaped(_Run, body)
        name, index = call[1], asked.fn_index
        if index is None:
            _endpoint(name)
            function = _function(blocks, lambda one: one.api_name == name)
        else:  # Gradio looks at no name then
            function = _function(blocks, lambda one: function_id(one) == index and one.fn is not None)
            if function.queue is not False:  # so the page calls what doesn't wait in the queue, as its Stop
                _endpoint(str(function.api_name))
        _values(function, asked.data)
    elif path == _JOIN:
        asked = _shaped(_Join, body)
        _values(
            _function(blocks, lambda one: function_id(one) == asked.fn_index and one.fn is not None),
            asked.data,
        )
    elif path == f"{API_PREFIX}/cancel":
        _shaped(_Cancel, body)
    else:
        _strict(_object(body))


class _Body(BaseModel):
    """Keys that Gradio knows, as its own clients send them."""

    model_config = ConfigDict(strict=True)


class _Call(_Body):
    data: list[Any]
    session_hash: str | None = None
    oauth_token: str | None = None


class _Run(_Call):
    fn_index: int | None = None
    trigger_id: int | None = None
    event_id: str | None = None
    event_data: Any = None
    simple_format: bool = False
    batched: Literal[False] | None = None  # Gradio's queue alone sets it


class _Join(_Run):
    session_hash: str
    fn_index: int


class _Cancel(_Body):
    session_hash: str
    fn_index: int
    event_id: str


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object that this body is.

    Raises:
        NotMeant: it is none, or one that can be read in two ways.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_once)
    except RecursionError:
        raise NotMeant(400, "The body's lists and objects are too deep in one another.") from None
    except ValueError as error:  # also: no UTF-8, a number of 5,000 digits
        raise NotMeant(400, f"The body is not JSON that can be read: {_why(error)}.") from None
    if not isinstance(value, dict):
        raise NotMeant(422, "The body must be a JSON object: {…}.")
    _bounded(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotMeant(400, f"{quoted(twice)} stands twice in one object of the body: leave one out.")
    return found


def _why(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    return "it isn't UTF-8" if isinstance(error, UnicodeDecodeError) else "a number in it is too long"


def _bounded(value: Any) -> None:
    count, level = 0, [value]
    for _ in range(MOST_DEPTH + 1):
        level = [inner for outer in level for inner in _within(outer)]
        count += len(level)
        if count > MOST_VALUES:
            raise NotMeant(400, f"The body has more than {MOST_VALUES:,} values, the most that are read.")
        if not level:
            return
    raise NotMeant(400, f"The body's lists and objects are more than {MOST_DEPTH} deep in one another.")


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _all(value: Any) -> Iterable[Any]:
    """This value, and all that stand in it."""
    rest = [value]
    while rest:
        one = rest.pop()
        yield one
        rest.extend(_within(one))


def _strict(value: Any) -> None:
    """For what no endpoint looks at: neither JSON nor UTF-8 has a way to write these in an answer.

    Raises:
        NotMeant: NaN or half a character stands in it.
    """
    for one in _all(value):
        texts = [one] if isinstance(one, str) else one if isinstance(one, dict) else ()
        if any(_NO_TEXT.search(text) for text in texts):
            raise NotMeant(400, "A text in the body is not text: it has half of a surrogate pair.")
        if isinstance(one, float) and not math.isfinite(one):
            raise NotMeant(400, "A number in the body is not finite: JSON has neither NaN nor Infinity.")


def _shaped(shape: type[Any], body: bytes) -> Any:
    """The body as this route's; what it calls `data` may hold anything: an endpoint names the parameter whose
    value is none.

    Raises:
        NotMeant: it is none of this route's.
    """
    value = _object(body)
    _strict({name: one for name, one in value.items() if name != "data"})
    try:
        asked = shape.model_validate(value)
    except ValidationError as error:
        what = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)
        )
        raise NotMeant(422, f"The body is not what this route takes: {what}.") from None
    _no_files(value.get("event_data"))
    return asked


def _endpoint(name: str) -> None:
    if name not in ENDPOINTS:
        raise NotMeant(404, no_endpoint(name))


def _function(blocks: Blocks, wanted: Callable[[BlockFunction], bool]) -> BlockFunction:
    for function in blocks.fns.values():
        if wanted(function):
            return function
    raise NotMeant(404, "The page has no such function: look at /config, or reload the page.")


def _parameters(values: Iterable[Any]) -> None:
    for value in values:
        _no_files(value)


def _no_files(value: Any) -> None:
    # Gradio takes the first for a file. It fetches or copies it, and looks into `meta` whatever that is.
    if any(isinstance(one, dict) and {"path", "meta"} <= one.keys() for one in _all(value)):
        raise NotMeant(400, NO_FILES)


def _values(function: BlockFunction, data: list[Any]) -> None:
    """Whether the function's widgets could have sent these.

    Raises:
        NotMeant: they are too few, or one is of a kind that its widget never sends.
    """
    widgets = [widget for widget in function.inputs if isinstance(widget, gr.components.Component)]
    if len(data) < len(widgets):
        words = f"{len(data)} values stand in data, and this function takes {len(widgets)}."
        raise NotMeant(422, words)
    _parameters(data)
    for widget, value in zip(widgets, data, strict=False):
        try:
            if isinstance(widget, gr.Dataset) and value is None:
                raise ValueError(value)  # passes it on, to where it is taken for an example
            widget.preprocess(value)
        except gr.Error as error:
            raise NotMeant(400, quoted(error.message, 200)[1:-1]) from None
        except Exception as error:  # Gradio's own, of any kind, for a value of another type
            name = getattr(widget, "label", None) or widget.get_block_name()
            raise NotMeant(400, f"{quoted(value)} is nothing that {quoted(name)} can be.") from error
