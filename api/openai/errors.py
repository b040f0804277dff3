"""Errors in the shape that OpenAI's clients read: which status, type and code each of ours has.

The words are the errors' own. Nothing that isn't meant for the caller gets here: an unforeseen exception is
logged, and answered without its words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.openai.request import problems_of
from pipeline.errors import AWAY, Busy, InvalidRequest, StepwiseError, quoted
from pipeline.events import Event

RETRY_AFTER = 10.0
"""Seconds to come back after while the drawing in front can't say how long it takes: its weights are being
loaded, or its first step isn't done."""
PARAMETERS = {"images": "n", "width": "size", "height": "size"}
"""Our names of parameters that OpenAI calls otherwise."""
TYPES = {401: "authentication_error", 409: "conflict_error", 429: "rate_limit_error"}
STATUSES = {
    "invalid_request": 400,
    "model_not_found": 404,
    "busy": 429,
    "rate_limited": 429,
    "model_unavailable": 503,
    "weights_error": 503,
    "out_of_memory": 503,
    "provider_error": 503,
    "quota_exceeded": 429,
    "zerogpu_error": 503,
    "disk_full": 503,
    "store_error": 503,
    "worker_died": 503,
    "server_ending": 503,
}
"""Of our errors' codes; any other is a drawing that failed, 500."""

COME_BACK = {"busy": RETRY_AFTER, "server_ending": AWAY}
"""Codes after which to come again, in so many seconds where the error doesn't say."""

FAILURES = {500: "internal_error", 503: "server_ending"}

ErrorType = Literal[
    "invalid_request_error", "authentication_error", "conflict_error", "rate_limit_error", "server_error"
]


class Problem(BaseModel):
    """What went wrong, in OpenAI's shape."""

    message: str = Field(description="What was wrong, which value, and what to do about it.")
    type: ErrorType
    param: str | None = Field(description="The parameter it is about, where it is about one.")
    code: str | None = Field(description="Which error this is, for programs.")


class ErrorAnswer(BaseModel):
    """The body of every answer that isn't a success."""

    error: Problem


class ErrorEvent(ErrorAnswer):
    """The data of a stream's `error` event, its last."""

    type: Literal["error"] = "error"


class Refusal(Exception):
    """An error on its way to the caller."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        kind: Any = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.status = status
        self.problem = Problem(message=message, type=kind, param=param, code=code)
        self.headers = dict(headers or {})
        if code in COME_BACK:
            self.headers.setdefault("Retry-After", f"{math.ceil(COME_BACK[code])}")
        elif status == 409 or status >= 500 or code == "quota_exceeded":
            # The clients would ask again by themselves, twice: each time a whole drawing, to the same end.
            self.headers["x-should-retry"] = "false"

    def response(self) -> JSONResponse:
        """The answer; a page of another origin may read the headers that its client goes by."""
        exposed = {"Access-Control-Expose-Headers": "Retry-After, x-should-retry, x-request-id"}
        return JSONResponse(
            ErrorAnswer(error=self.problem).model_dump(), self.status, {**self.headers, **exposed}
        )

    def data(self) -> str:
        """The same within a stream, where the status has been sent: an `error` event's data."""
        return ErrorEvent(error=self.problem).model_dump_json()


def refusal_of(error: StepwiseError, names: Mapping[str, str] = PARAMETERS) -> Refusal:
    """One of our errors, as the caller gets it.

    Args:
        names: of parameters, by those that the error has for them; any other is the caller's own.
    """
    status = STATUSES.get(error.code, 500)
    if isinstance(error, InvalidRequest):
        named = [(names.get(name, name), name, words) for name, words in error.problems.items()]
        message = " ".join(words if param == name else f"{param}: {words}" for param, name, words in named)
        return Refusal(status, message, error.code, named[0][0] or None)
    headers = {}
    if isinstance(error, Busy) and error.retry_after is not None:
        headers["Retry-After"] = f"{max(1, math.ceil(error.retry_after))}"
    param = "model" if error.code == "model_unavailable" else None
    return Refusal(status, str(error), error.code, param, headers)


def refusal_after(event: Event) -> Refusal | None:
    """Why there is no picture although the drawing has ended; None where there are pictures.

    Args:
        event: the drawing's last.
    """
    headers = {"x-request-id": event.job.id}
    if event.phase == "failed":
        code = event.code or "failed"
        return Refusal(STATUSES.get(code, 500), event.error or "", code, headers=headers)
    if event.phase == "stopped":
        words = f"The drawing was stopped from elsewhere, at step {event.step} of {event.steps}."
        return Refusal(409, words, "stopped", headers=headers)
    return None


def refuse(status: int, words: str, headers: Mapping[str, str]) -> JSONResponse:
    """What the guard refuses (guard/guard.py, auth/keys.py, auth/login.py), in this shape."""
    code = {
        401: "invalid_api_key",
        403: "not_let_in",
        408: "body_too_slow",
        413: "body_too_large",
        415: "body_encoded",
        421: "unknown_host",
        429: "rate_limited",
        503: "login_unavailable",
    }.get(status)
    return Refusal(status, words, code, headers=headers).response()


def fail(status: int, words: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """What got past all handlers (guard/error_shapes.py), in this shape."""
    return Refusal(status, words, FAILURES.get(status), headers=headers)


def add_handlers(app: FastAPI) -> None:
    """Makes every error of this app an answer in this shape."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return error.response()

    @app.exception_handler(StepwiseError)
    async def ours(_: Request, error: StepwiseError) -> JSONResponse:
        return refusal_of(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = problems_of(error, request.headers.get("content-type"))
        return refusal_of(InvalidRequest(problems), names={}).response()

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        return Refusal(
            error.status_code, _words(app, request, error), _code(error.status_code), headers=error.headers
        ).response()

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, __: Exception) -> JSONResponse:
        words = "Something went wrong in the server; its log has the details."
        return Refusal(500, words, "internal_error").response()


def _words(app: FastAPI, request: Request, error: HTTPException) -> str:
    asked = quoted(f"{request.method} {request.url.path}", 120)[1:-1]
    if error.status_code in (404, 405):
        paths, prefix = app.openapi()["paths"], request.scope["root_path"]
        known = ", ".join(f"{method.upper()} {prefix}{path}" for path in paths for method in paths[path])
        return f"There is no {asked}; there are {known}."
    if error.status_code == 400:
        return "The body is not JSON that can be read: send one object, in UTF-8."
    return str(error.detail)


def _code(status: int) -> str | None:
    return {400: "invalid_request", 404: "unknown_url", 405: "method_not_allowed"}.get(status)
