"""Refusals for REST calls that Gradio (6.31) answers with a bare 500: a parameter that is missing or
unknown, and an endpoint that doesn't exist. What is wrong with a parameter's value is endpoints.py's; what is
wrong with the body around it, bodies.py's.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from pipeline.errors import quoted
from pipeline.parameters import PARAMETERS, instead
from pipeline.request import NAMES

ENDPOINTS = {"generate": tuple(PARAMETERS), "job": ("job",), "jobs": (), "models": (), "stop": ("job",)}
_NAMED_CALL = re.compile(r"/call/v2/([^/]*)/?$")
_UNKNOWN = re.compile(r"^Parameter `(.*)` is not a valid key-word argument", re.DOTALL)
_MISSING = re.compile(r"^No value provided for required argument: (.*)$", re.DOTALL)


async def _parameter(request: Request, error: Exception) -> JSONResponse:
    call, words = _NAMED_CALL.search(request.url.path), str(error)
    unknown, missing = _UNKNOWN.search(words), _MISSING.search(words)
    if call is None or (unknown is None and missing is None):
        raise error
    if missing is not None:
        return JSONResponse({"detail": f"{missing[1]} is required."}, 422)
    has = ENDPOINTS.get(call[1], ())
    name = quoted(unknown[1])  # type: ignore[index]  # one of the two is not None
    words = f"{name} is not a parameter of /{call[1]}; it has: {', '.join(has) or 'none'}."
    hint = instead(name[1:-1], NAMES if call[1] == "generate" else {one: one for one in has})
    return JSONResponse({"detail": words + hint}, 422)


def no_endpoint(name: str) -> str:
    """Why there is no answer to a call of this name."""
    known = ", ".join(f"/{one}" for one in ENDPOINTS)
    return f"There is no endpoint /{quoted(name)[1:-1]}; there are: {known}."


HANDLERS: dict[Any, Any] = {TypeError: _parameter}
"""What `Blocks.launch` is given as `app_kwargs["exception_handlers"]`."""
