"""How HTTP reaches the MCP server: one ASGI app for /mcp, over the SDK's streamable HTTP transport.

It adds what the transport lacks: a client that leaves is noticed, a session belongs to who opened it
(sessions.py), messages are bounded and read strictly (messages.py), and a browser gets an
explanation. The tools are server.py's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http import GET_STREAM_KEY, LAST_EVENT_ID_HEADER, MCP_SESSION_ID_HEADER
from mcp.types import INTERNAL_ERROR, INVALID_REQUEST, ErrorData
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.keys import KEY
from api.guard.access import MESSAGE
from api.guard.bodies import replay_body
from api.mcp.messages import ClientMessage, NoMessage, read_message
from api.mcp.server import RootUrl, mcp_server
from api.mcp.sessions import AGAIN, IDLE, MOST_SESSIONS, SHARE, NoRoom, Session, Sessions
from api.mcp.transport import Transport, silence_ended_sessions
from api.pictures import PictureFiles
from api.visitor import owner_of, set_asking_request
from pipeline.errors import quoted

if TYPE_CHECKING:
    from jobs.queue import Queue

ABOUT = """This is the MCP server of Stepwise: it is for language models, not for browsers.
To add it to an assistant, give the assistant this page's address, and "HTTP" as the transport.
It has two tools: draw and list_models. The page for people is at / instead."""
TOO_LONG = f"The request's body is longer than {MESSAGE:,} bytes, the most that is read."
NOT_JSON = "The request's Content-Type must be application/json."
NO_SESSION = "This request names no session: begin one with `initialize`, and send its Mcp-Session-Id."
NOT_FOUND = "There is no such session, or no more: begin another with `initialize`."
ONE_STREAM = "This session has its stream open already; there is one for each."
METHODS = "GET, POST, DELETE"


class Answered(Exception):
    """The request goes no further: it has its answer, mostly a refusal."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer


class Visit:
    """One HTTP request of a client: tells the call that it carries when the client has left."""

    def __init__(self) -> None:
        self._left = False
        self._then: list[Callable[[], None]] = []

    def on_leaving(self, then: Callable[[], None]) -> None:
        """Call `then` once the request has ended, however; at once if it has already."""
        if self._left:
            then()
        else:
            self._then.append(then)

    def leave(self) -> None:
        """Note that the request has ended: it was answered, or its client is gone."""
        self._left = True
        for then in self._then:
            then()


class McpApp:
    """The ASGI app for /mcp. Its `lifespan` must run around it, once.

    Sessions are kept, though the transport can do without: a client's `notifications/cancelled` is a request
    of its own, and names the call to cancel by a number that means nothing outside a session.
    """

    def __init__(
        self,
        server: Server[Any, Request],
        idle: float = IDLE,
        most_sessions: int = MOST_SESSIONS,
        share: int = SHARE,
    ) -> None:
        """
        Args:
            idle: seconds, see IDLE. most_sessions, share: see MOST_SESSIONS and SHARE.
        """
        self._server = server
        self._sessions = Sessions(most_sessions, share, idle)
        self._transport = Transport(server, self._sessions, idle, refusal(404, NOT_FOUND))

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Any) -> AsyncIterator[None]:
        """End every session, and with it what it draws, when the app ends."""
        async with self._transport.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, send = Request(scope, receive), _exposing(send)
        try:
            await self._handle(request, send)
        except Answered as answered:
            await answered.answer(scope, receive, send)
        except ClientDisconnect:
            return

    async def _handle(self, request: Request, send: Send) -> None:
        accepted = request.headers.get("accept", "")
        if request.method in ("GET", "HEAD") and "text/event-stream" not in accepted:
            raise Answered(PlainTextResponse(ABOUT))
        if request.method == "POST":
            await self._post(request, send)
        elif request.method == "GET":
            await self._stream(request, send)
        elif request.method == "DELETE":
            session = self._session_of(request)
            with self._sessions.answering(session):
                await self._transport.answer(session, request.scope, request.receive, send)
        else:
            words = f"{quoted(request.method)[1:-1]} is not of this protocol; it has {METHODS}."
            raise Answered(refusal(405, words, {"Allow": METHODS}))

    async def _stream(self, request: Request, send: Send) -> None:
        """Answer with a session's stream of notifications."""
        session = self._session_of(request)
        if session.streams:
            raise Answered(refusal(409, ONE_STREAM))
        # No news are kept for who comes back, so it begins anew: asked for older ones, the SDK (1.30) would
        # not answer at all.
        last = LAST_EVENT_ID_HEADER.encode()
        headers = [header for header in request.scope["headers"] if header[0] != last]
        with self._sessions.streaming(session):
            await self._transport.answer(
                session, {**request.scope, "headers": headers}, request.receive, send
            )

    async def _post(self, request: Request, send: Send) -> None:
        message = await _message(request)
        receive = replay_body(message.body, request.receive)
        if message.opens and MCP_SESSION_ID_HEADER not in request.headers:
            self._check(message)
            await self._open(request, receive, send)
            return
        session = self._session_of(request)
        self._check(message, session)
        visit = request.state.visit = Visit()
        with self._sessions.answering(session, message.call):
            try:
                # Returns when the answer is sent, and also when the client has closed the connection. By the
                # protocol, closing alone is no cancelling: a client might come back for the answer. Here it
                # can't, for no answer is kept to be fetched again: drawing on would be for nobody.
                await self._transport.answer(session, request.scope, receive, send)
            finally:
                visit.leave()
            await self._transport.lighten(session, request, len(message.body))

    def _session_of(self, request: Request) -> Session:
        """Return the session that the request is for.

        Raises:
            Answered: it names none, or none of this person's.
        """
        named = request.headers.get(MCP_SESSION_ID_HEADER)
        if named is None:
            raise Answered(refusal(400, NO_SESSION))
        session = self._sessions.find(named, _person(request))
        if session is None:
            raise Answered(refusal(404, NOT_FOUND))
        return session

    def _check(self, message: ClientMessage, session: Session | None = None) -> None:
        """
        Raises:
            Answered: the message is answered without the SDK.
        """
        if message.id is None:
            if not message.means_something():
                raise Answered(Response(status_code=202))
            return
        error = message.error(self._server.request_handlers)
        if error is not None:
            raise Answered(_rpc(message.id, error, 200))
        if session is not None and message.call in (*session.calls, GET_STREAM_KEY):
            words = f"The id {quoted(message.id)} is taken: another request in this session has it."
            raise Answered(refusal(400, words))

    async def _open(self, request: Request, receive: Receive, send: Send) -> None:
        """Open one more session, where there is room for it."""
        try:
            session, gone = self._sessions.open(_person(request))
        except NoRoom as error:
            raise Answered(refusal(error.status, str(error), {"Retry-After": f"{AGAIN}"})) from error
        try:
            if gone is not None:
                await self._transport.end(gone)
            set_asking_request(None)  # the session's task begins in this context, and would keep the request
            await self._transport.answer(session, request.scope, receive, send)
            if session.id:
                await self._transport.lighten(session, request)
        finally:
            self._sessions.answered(session)
            if not session.id:
                self._sessions.forget(session)


def mcp_app(queue: Queue, files: PictureFiles, root_url: RootUrl) -> McpApp:
    """Return the MCP server over this queue.

    Args:
        files: where finished PNGs are kept for download.
    """
    silence_ended_sessions()
    return McpApp(mcp_server(queue, files, root_url))


def mcp_routes(app: ASGIApp) -> list[Route]:
    """Return the routes /mcp and /mcp/: a redirect from one to the other would lose some clients' POST."""
    return [Route(path, app, include_in_schema=False) for path in ("/mcp", "/mcp/")]


def refusal(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal before the protocol has begun, in its shape."""
    return _rpc(None, ErrorData(code=INVALID_REQUEST, message=words), status, headers)


def _rpc(
    number: str | int | None, error: ErrorData, status: int, headers: Mapping[str, str] | None = None
) -> Response:
    content = {"jsonrpc": "2.0", "id": number, "error": error.model_dump(exclude_none=True)}
    return JSONResponse(content, status, headers)


def failure(status: int, words: str, headers: Mapping[str, str]) -> Response:
    """Return the answer to what got past all handlers (guard/error_shapes.py), in this shape."""
    code = INTERNAL_ERROR if status >= 500 else INVALID_REQUEST
    return _rpc(None, ErrorData(code=code, message=words), status, headers)


def _person(request: Request) -> str:
    """Return whose session it is: a logged-in user's or a key's, wherever they are; else an address'."""
    key = request.scope.get(KEY)
    return f"key:{key}" if key else owner_of(request).person


async def _message(request: Request) -> ClientMessage:
    """Return what the client sent.

    Raises:
        Answered: it doesn't say that it is JSON, is too long, or is no message.
        ClientDisconnect: the client has left.
    """
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise Answered(refusal(400, NOT_JSON))  # the SDK (1.30) would, too, and log what it was sent
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MESSAGE:
            raise Answered(refusal(413, TOO_LONG))
    try:
        return read_message(bytes(body))
    except NoMessage as error:
        raise Answered(refusal(400, str(error))) from error


def _exposing(send: Send) -> Send:
    """Return a `send` that lets a web page's script read the session's id; Gradio's CORS middleware (6.31)
    exposes no header."""

    async def exposing(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Access-Control-Expose-Headers"] = MCP_SESSION_ID_HEADER
        await send(message)

    return exposing
