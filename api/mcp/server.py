"""The MCP server at /mcp: what the tools `draw` and `list_models` do, for any client of the Model Context
Protocol. How a model is told about them stands in tools.py, what HTTP asks for in http.py.

Not Gradio's own (6.31): there every endpoint becomes a tool, a gallery arrives as text, and nothing stops.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequest,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ServerResult,
    TextContent,
    Tool,
)
from PIL import Image
from starlette.requests import Request

from api.gradio.endpoints import AGAIN
from api.mcp.tools import INSTRUCTIONS, TAKEN, tools
from api.pictures import PictureFiles
from api.start_job import start_job
from api.visitor import set_asking_request
from pipeline import __version__
from pipeline.errors import InvalidRequest, StepwiseError, quoted
from pipeline.events import Event
from pipeline.parameters import instead

if TYPE_CHECKING:
    from jobs.lifecycle.subscription import Subscription
    from jobs.queue import Queue

log = logging.getLogger("stepwise")

PARAMETERS = tuple(parameter.name for parameter in TAKEN)
NAMES = {name: name for name in PARAMETERS} | {
    "size": "width and height",
    "images": "a call for each picture",
}
"""What `instead` may say to a client of `draw`."""
MOST_BYTES = 700_000
"""Of a picture in an answer. Base64 makes a third more of it, and Claude Desktop refuses an answer above
1 MiB. A finished 1024² PNG is 1.5 to 2 MB."""
QUALITIES = (92, 80, 60, 40, 25)
"""Of the JPEG that stands in for a larger PNG, best first. At the first, a 1024² picture has about 300 KB."""

RootUrl = Callable[[Request], str]
"""The address of this app as whoever sent a request sees it, without a slash at its end."""


def mcp_server(queue: Queue, files: PictureFiles, root_url: RootUrl) -> Server[Any, Request]:
    """The protocol's side of it, still without a transport.

    Args:
        files: give finished PNGs their addresses.
    """
    server: Server[Any, Request] = Server("stepwise", __version__, INSTRUCTIONS)

    @server.list_tools()
    async def list_tools() -> list[Tool]:
        return await asyncio.to_thread(tools, queue.engine)

    async def call_tool(request: CallToolRequest) -> ServerResult:
        return ServerResult(await called(request.params.name, request.params.arguments or {}))

    async def called(name: str, arguments: dict[str, Any]) -> CallToolResult:
        try:
            if name == "draw":
                return await draw(queue, files, root_url, server, arguments)
            if name == "list_models":
                _only((), arguments, name)
                return await asyncio.to_thread(_listed, queue)
            return _refusal(f"There is no tool {quoted(name)}; there are draw and list_models.")
        except StepwiseError as error:
            return _refusal(str(error))
        except Exception:  # the SDK (1.30) would log nothing and send the client its text
            log.exception("The MCP tool %s failed", quoted(name))
            return _refusal(
                "The server made a mistake; its log has the details. Try again, or tell its owner."
            )

    # Not by the SDK's decorator (1.30): it refuses in jsonschema's words, and logs what the client sent.
    server.request_handlers[CallToolRequest] = call_tool
    return server


async def draw(
    queue: Queue,
    files: PictureFiles,
    root_url: RootUrl,
    server: Server[Any, Request],
    arguments: dict[str, Any],
) -> CallToolResult:
    """Draws one picture, telling the client each step where it asked for that. The job ends with the call:
    when the client cancels it, and when the client is gone.

    Raises:
        StepwiseError: in the words that the client gets.
    """
    _only(PARAMETERS, arguments, "draw")
    context = server.request_context
    assert context.request is not None  # over HTTP there always is one
    job = await asyncio.to_thread(queue.check, arguments)
    set_asking_request(context.request)  # the session's task has the context of its first request
    drawing = await start_job(queue, job)
    context.request.state.visit.on_leaving(drawing.stop)
    token = None if context.meta is None else context.meta.progressToken

    async def tell(progress: float, message: str) -> None:
        if token is not None:
            await context.session.send_progress_notification(
                token, progress, job.steps, message, related_request_id=str(context.request_id)
            )

    try:
        event = await _follow(drawing, tell)
    except (anyio.ClosedResourceError, anyio.BrokenResourceError):  # its session ended: nobody will read this
        event = drawing.latest
    finally:
        drawing.stop()
    if event.phase != "finished":
        words = event.error or f"The drawing was stopped at step {event.step} of {event.steps}."
        return _refusal(words)
    return await asyncio.to_thread(_drawn, event, files, root_url(context.request))


async def _follow(drawing: Subscription, tell: Callable[[float, str], Awaitable[None]]) -> Event:
    """Tells of every event, the newest where the client is slow, and gives the last one."""
    step, told = 0, 0
    event = drawing.latest
    async for event in drawing.events(repeat_after=AGAIN):
        if event.last:
            break
        if event.step > step:
            step, told = event.step, 0
        elif step == event.steps:
            continue  # decoding: its progress could only be more than all of it
        # Progress must grow with every message (MCP, "Progress"), also while nothing is drawn yet.
        await tell(step + told / (told + 1), _in_words(event))
        told += 1
    return event


def _in_words(event: Event) -> str:
    if event.phase == "queued":
        return f"waiting, {event.position} ahead" if event.position else "about to start"
    if event.phase == "downloading" and not event.total:
        return "looking up the model's files"
    if event.phase == "downloading":
        return f"downloading the model, {event.done / 1e9:.1f} of {event.total / 1e9:.1f} GB"
    if event.phase == "loading":
        return f"loading part {min(event.done + 1, event.total)} of {event.total}"
    if event.phase == "encoding":
        return "reading the prompt"
    return f"step {event.step} of {event.steps}"


def _drawn(event: Event, files: PictureFiles, root: str) -> CallToolResult:
    """The picture, and how it was drawn. Takes its time: not for an event loop.

    No structured content: where there is any, Claude Code and others show their model that alone, and
    the picture never arrives (anthropics/claude-code issue 54737).
    """
    (png,) = event.images
    job, address = event.job, root + files.path(files.file(event.job, png, f"{event.job.seed}.png"))
    picture, kind = fitted(png)
    info = {
        "png": address,
        **{name: getattr(job, name) for name in PARAMETERS if name != "prompt"},
        "seconds": round(event.seconds, 2),
        "warnings": list(event.warnings),
    }
    if kind != "image/png":
        info["note"] = (
            "The picture above is a JPEG, to be small; the PNG has all of its quality and its recipe."
        )
    content: list[ContentBlock] = [
        ImageContent(type="image", data=base64.b64encode(picture).decode(), mimeType=kind),
        TextContent(type="text", text=json.dumps(info, ensure_ascii=False)),
    ]
    return CallToolResult(content=content)


def fitted(png: bytes, most: int = MOST_BYTES) -> tuple[bytes, str]:
    """A finished picture as an answer carries it: the PNG itself, or a JPEG where that is too large.

    Args:
        most: bytes. Where even the smallest JPEG has more, it is that one.

    Returns:
        The file and its media type.
    """
    if len(png) <= most:
        return png, "image/png"
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= most:
            break
    return buffer.getvalue(), "image/jpeg"


def _listed(queue: Queue) -> CallToolResult:
    listed = {"models": queue.models()}
    text = TextContent(type="text", text=json.dumps(listed, ensure_ascii=False))
    return CallToolResult(content=[text], structuredContent=listed)


def _only(parameters: tuple[str, ...], arguments: dict[str, Any], tool: str) -> None:
    for name in arguments:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            shown, hint = quoted(name), instead(quoted(name)[1:-1], NAMES if parameters else {})
            raise InvalidRequest({name: f"{shown} is not a parameter of {tool}; it has: {known}.{hint}"})


def _refusal(words: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=words)], isError=True)
