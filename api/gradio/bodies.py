"""What may be asked of Gradio's own routes (6.31), in a body above all. FastAPI and Gradio read it one after
the other, and answer much of what they can't use with 500 and a traceback in the log. Here it is read first,
and refused; what passes is handed on as it came.
"""

from __future__ import annotations

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

from api.gradio.json_bodies import UnusableBody, all_values, check_text, read_object
from api.gradio.patches import function_id
from api.gradio.refusals import ENDPOINTS, no_endpoint
from api.guard.access import Refuse, under
from api.guard.bodies import replay_first
from api.openai.routes import PREFIX
from pipeline.errors import quoted

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


class StrictBodies:
    """Middleware that hands on to Gradio the bodies that it can read, and refuses the others. It stands
    behind BoundBody, which hands on each as one message."""

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
                check_body(path, kind, message.get("body", b""), scope["app"].get_blocks())
            except UnusableBody as wrong:
                await self._refuse(wrong.status, str(wrong), {})(scope, receive, send)
                return

        await self._app(scope, replay_first(message, receive), send)


def _is_no_file(path: str) -> bool:
    """Whether Gradio would look for a file that no disk can have: it fails at the disk's error."""
    if not any(under(path, one) for one in _FILES):
        return False
    names = path.encode(errors="surrogatepass").split(b"/")
    return sum(map(len, names)) > LONGEST_PATH or max(map(len, names)) > LONGEST_NAME


def _is_page(scope: Scope) -> bool:
    """Whether the page that is asked for exists; Gradio takes its name also from the query."""
    names = {page[0] for page in scope["app"].get_blocks().pages}
    return names.issuperset(QueryParams(scope["query_string"]).getlist("page"))


def check_body(path: str, kind: str, body: bytes, blocks: Blocks) -> None:
    """Check that Gradio can read this body.

    Args:
        path: of the route, as the app knows it. kind: the request's Content-Type. blocks: the page.

    Raises:
        UnusableBody: it can't.
    """
    if not _JSON.match(kind.strip()):
        if body:
            raise UnusableBody(
                415, "The body must be JSON, and say so: send “Content-Type: application/json”."
            )
        return  # what a route says that wants one
    if (call := _NAMED.fullmatch(path)) is not None:
        _endpoint(call[1])
        _parameters(read_object(body).values())
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
        check_text(read_object(body))


class _Body(BaseModel):
    """The keys that Gradio knows, as its own clients send them."""

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


def _shaped(shape: type[Any], body: bytes) -> Any:
    """Return the body as this route's model. What it calls `data` may hold anything: an endpoint names the
    parameter whose value can't be one.

    Raises:
        UnusableBody: it is none of this route's.
    """
    value = read_object(body)
    check_text({name: one for name, one in value.items() if name != "data"})
    try:
        asked = shape.model_validate(value)
    except ValidationError as error:
        what = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)
        )
        raise UnusableBody(422, f"The body is not what this route takes: {what}.") from None
    _no_files(value.get("event_data"))
    return asked


def _endpoint(name: str) -> None:
    """Check that there is an endpoint of this name."""
    if name not in ENDPOINTS:
        raise UnusableBody(404, no_endpoint(name))


def _function(blocks: Blocks, wanted: Callable[[BlockFunction], bool]) -> BlockFunction:
    """Return the page's function that fits."""
    for function in blocks.fns.values():
        if wanted(function):
            return function
    raise UnusableBody(404, "The page has no such function: look at /config, or reload the page.")


def _parameters(values: Iterable[Any]) -> None:
    for value in values:
        _no_files(value)


def _no_files(value: Any) -> None:
    # Gradio takes the first for a file. It fetches or copies it, and looks into `meta` whatever that is.
    if any(isinstance(one, dict) and {"path", "meta"} <= one.keys() for one in all_values(value)):
        raise UnusableBody(400, NO_FILES)


def _values(function: BlockFunction, data: list[Any]) -> None:
    """Check that the function's widgets could have sent these values.

    Raises:
        UnusableBody: they are too few, or one is of a kind that its widget never sends.
    """
    widgets = [widget for widget in function.inputs if isinstance(widget, gr.components.Component)]
    if len(data) < len(widgets):
        words = f"{len(data)} values stand in data, and this function takes {len(widgets)}."
        raise UnusableBody(422, words)
    _parameters(data)
    for widget, value in zip(widgets, data, strict=False):
        try:
            if isinstance(widget, gr.Dataset) and value is None:
                raise ValueError(value)  # passes it on, to where it is taken for an example
            widget.preprocess(value)
        except gr.Error as error:
            raise UnusableBody(400, quoted(error.message, 200)[1:-1]) from None
        except Exception as error:  # Gradio's own, of any kind, for a value of another type
            name = getattr(widget, "label", None) or widget.get_block_name()
            raise UnusableBody(400, f"{quoted(value)} is nothing that {quoted(name)} can be.") from error
