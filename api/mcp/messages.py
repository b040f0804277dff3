"""What a client's message is, looked at before the SDK (1.30) gets it. That one logs whatever it can't read,
takes a request with an odd id for a notification, and keeps a session's last message until the next one: so
it gets only what it can answer, bounded in all its parts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any, get_args

from mcp.types import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CancelledNotification,
    ClientRequestType,
    ErrorData,
    InitializedNotification,
    InitializeRequest,
)
from pydantic import BaseModel, ValidationError

from pipeline.errors import quoted

MOST_VALUES = 1000
"""In one message: lists, objects, and what is in them. A drawing has ten. 600 KB of empty lists took the SDK
half a second, and 27 MB for as long as it kept them."""
MOST_DEEP = 32
"""Lists and objects within each other."""
MOST_ID = 256
"""Characters of a request's id, and of the token of its progress: the answers and each step's news repeat
them."""

INITIALIZE, CANCELLED = "initialize", "notifications/cancelled"
NOT_JSON = (
    "The request's body is not JSON that can be read: expected one JSON-RPC message, in UTF-8, and in it "
    "neither NaN nor Infinity."
)
NO_MESSAGE = 'The request\'s body is no JSON-RPC message: expected one object with "jsonrpc": "2.0"'
REQUESTS: dict[str, type[BaseModel]] = {
    one.model_fields["method"].default: one for one in get_args(ClientRequestType)
}
"""Each request that the protocol knows, by its method."""
NOTIFICATIONS: dict[str, type[BaseModel]] = {
    one.model_fields["method"].default: one for one in (CancelledNotification, InitializedNotification)
}
"""Those that mean something to this server."""


class NoMessage(Exception):
    """A body is no message that may be read; the words say why."""


@dataclass(frozen=True)
class ClientMessage:
    """One message. id: a request's; None: it is a notification, or answers a request of the server's."""

    method: str
    """Empty: an answer. This server asks its clients nothing, so there is none that it waits for."""
    id: str | int | None
    params: dict[str, Any]
    body: bytes
    """As the SDK shall read it."""

    @property
    def opens(self) -> bool:
        """Whether it is the one that begins a session."""
        return self.method == INITIALIZE and self.id is not None

    @property
    def call(self) -> str | None:
        """Return the request's id as the SDK tells requests apart, or None if it is no request."""
        return None if self.id is None else str(self.id)

    def means_something(self) -> bool:
        """Whether a notification is for this server."""
        kind, cancels = NOTIFICATIONS.get(self.method), self.params.get("requestId")
        if isinstance(cancels, str) and len(cancels) > MOST_ID:
            return False
        return kind is not None and _error_in(kind, self.method, self.params) is None

    def error(self, answered: Container[type]) -> ErrorData | None:
        """Return why this request can't be done, where that can be said without doing it, or None.

        Args:
            answered: the kinds of requests that the server answers, beside `initialize`.
        """
        kind = REQUESTS.get(self.method)
        if kind is None or (kind is not InitializeRequest and kind not in answered):
            words = f"Method not found: this server has no {quoted(self.method)}."
            return ErrorData(code=METHOD_NOT_FOUND, message=words)
        why = _error_in(kind, self.method, self.params)
        if why is not None:
            words = f"Invalid request parameters of {self.method}: {why}."
            return ErrorData(code=INVALID_PARAMS, message=words)
        return None


def read_message(body: bytes) -> ClientMessage:
    """Return the message in a request's body.

    Raises:
        NoMessage: there is none, or a part of it is past a bound.
    """
    try:
        # Strictly: NaN, Infinity and 1e400 are none. The SDK would make null of them, the default.
        message = json.loads(body, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # also: no UTF-8, a number of 5,000 digits
        raise NoMessage(NOT_JSON) from error
    if not isinstance(message, dict):
        batch = "; one alone, no batch" if isinstance(message, list) else ""
        raise NoMessage(f"{NO_MESSAGE}{batch}.")
    if message.get("jsonrpc") != "2.0":
        raise NoMessage(f"{NO_MESSAGE}.")
    _check_size(message)
    method, params = message.get("method"), message.get("params")
    if method is None and ("result" in message or "error" in message):
        return ClientMessage("", None, {}, b"")
    if not isinstance(method, str) or not method:
        raise NoMessage(f'{NO_MESSAGE} and, as its "method", a text.')
    if params is not None and not isinstance(params, dict):
        raise NoMessage(f'{NO_MESSAGE}, whose "params" are an object or not there.')
    params = params or {}
    if "id" not in message:
        return ClientMessage(method, None, params, _cancelling(params) if method == CANCELLED else body)
    number = _identifier(message["id"], '"id"')
    token = _meta(params).get("progressToken")
    if token is not None:
        _identifier(token, '"progressToken"')
    if method == INITIALIZE:
        body = _briefly(number, params)
    return ClientMessage(method, number, params, body)


def _identifier(value: Any, name: str) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    if (
        isinstance(value, str)
        and len(value) <= MOST_ID
        and not any("\ud800" <= one <= "\udfff" for one in value)
    ):
        return value
    raise NoMessage(f"The message's {name} must be a whole number or a text of at most {MOST_ID} characters.")


def _meta(params: dict[str, Any]) -> dict[str, Any]:
    meta = params.get("_meta")
    return meta if isinstance(meta, dict) else {}


def _check_size(message: dict[str, Any]) -> None:
    values: list[tuple[Any, int]] = [(message, 1)]
    for value, depth in values:  # which grows meanwhile
        within = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if len(values) + len(within) > MOST_VALUES or depth > MOST_DEEP:
            raise NoMessage(
                f"The message has more than {MOST_VALUES:,} values, or more than {MOST_DEEP} within each "
                "other."
            )
        values += [(one, depth + 1) for one in within]


def _cancelling(params: dict[str, Any]) -> bytes:
    """Return `notifications/cancelled` without the reason, which the SDK may write to the log."""
    brief = {"requestId": params.get("requestId")}
    return json.dumps({"jsonrpc": "2.0", "method": CANCELLED, "params": brief}).encode()


def _briefly(number: str | int, params: dict[str, Any]) -> bytes:
    """Return `initialize` without what the client says of itself: nothing here asks for it, and the SDK keeps
    it as long as the session."""
    version = params.get("protocolVersion")
    brief = {
        "protocolVersion": version[:32] if isinstance(version, str) else version,
        "capabilities": {},
        "clientInfo": {"name": "client", "version": ""},
    }
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": INITIALIZE, "params": brief}).encode()


def _error_in(kind: type[BaseModel], method: str, params: dict[str, Any]) -> str | None:
    """Return what is wrong with a message's parameters, in pydantic's words without what was sent, or
    None."""
    try:
        kind.model_validate({"method": method, "params": params} if params else {"method": method})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{quoted(where)[1:-1]}: {first['msg']}"
    return None


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(number)
    return float(number)
