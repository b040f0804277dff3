"""The OpenAPI document of the OpenAI-compatible routes: what FastAPI can't know of them by itself.

Bounds are this server's: where its models differ, from the lowest to the highest of them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.guard.access import LARGE
from api.openai.answer import CompletedImage, PartialImage
from api.openai.errors import ErrorAnswer, ErrorEvent, Refusal
from api.openai.request import MOST_PARTIALS, OPENAIS_MODEL, THEIRS
from pipeline.parameters import parameters

ABOUT = """Drawing, and the list of models, in the shape of OpenAI's image API: its clients need this address
as their base URL and nothing else. Nothing is billed or moderated, no tokens are counted."""

_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_RETRY_NOT = {
    "x-should-retry": {
        "description": "`false`: a client that asks again by itself needn't; it would end the same way.",
        "schema": {"type": "string", "const": "false"},
    }
}
_JOB = {"X-Request-Id": {"description": "The drawing's id.", "schema": {"type": "string", "format": "uuid"}}}

_ERRORS: dict[int, tuple[str, dict[str, Any], Refusal]] = {
    400: (
        "A parameter or the body is wrong: `param` names it.",
        {},
        Refusal(400, 'steps must be a whole number; got "5".', "invalid_request", "steps"),
    ),
    401: (
        "The server asks for a key, and this isn't one.",
        {"WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}}},
        Refusal(401, "This server asks for a key: send one of its keys.", "invalid_api_key"),
    ),
    404: (
        "There is no such model.",
        {},
        Refusal(
            404, 'model "sdxl" is not known. Known models: sketch.', "model_not_found", "model"
        ),
    ),
    409: (
        "The drawing was stopped from elsewhere.",
        _RETRY_NOT,
        Refusal(409, "The drawing was stopped from elsewhere, at step 3 of 28.", "stopped"),
    ),
    413: (
        f"The body is longer than {LARGE:,} bytes.",
        {},
        Refusal(413, "The request's body is longer than 1,048,576 bytes.", "body_too_large"),
    ),
    415: (
        "The body is compressed.",
        {"Accept-Encoding": {"schema": {"type": "string", "const": "identity"}}},
        Refusal(415, "The request's body is encoded as gzip, which isn't read here.", "body_encoded"),
    ),
    429: (
        "As many drawings are waiting as this server takes.",
        _RETRY_AFTER,
        Refusal(429, "50 drawings are waiting already, as many as this server takes.", "busy"),
    ),
    500: (
        "The drawing failed, or the server did; its log has the details.",
        _RETRY_NOT,
        Refusal(500, "Something went wrong in the server; its log has the details.", "internal_error"),
    ),
    503: (
        "The model can't run here, its weights can't be had, memory ran out, or the server is ending; `code` "
        "says which. Only after the last it is worth asking again, and `Retry-After` says when.",
        _RETRY_NOT | _RETRY_AFTER,
        Refusal(503, "Large can't run here. Needs a GPU; there is none.", "model_unavailable", "model"),
    ),
}  # fmt: skip

_REF = "#/components/schemas/{model}"
_EVENTS: dict[str, type[BaseModel]] = {
    "image_generation.partial_image": PartialImage,
    "image_generation.completed": CompletedImage,
    "error": ErrorEvent,
}

STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pictures; with `stream`, events, with comments to fill the silence between them.",
        "headers": _JOB,
        "content": {
            "text/event-stream": {
                # As OpenAPI 3.2 will have it, and FastAPI (0.165) writes it: what each event is.
                "itemSchema": {
                    "type": "object",
                    "properties": {
                        "event": {"enum": [*_EVENTS]},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": {
                                "oneOf": [
                                    {"$ref": _REF.format(model=one.__name__)} for one in _EVENTS.values()
                                ]
                            },
                        },
                    },
                    "required": ["event", "data"],
                },
                "example": "event: image_generation.partial_image\n"
                'data: {"type": "image_generation.partial_image", "partial_image_index": 0, …}\n\n',
            }
        },
    }
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` are given for these statuses."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        description, headers, refusal = _ERRORS[status]
        found[status] = {
            "model": ErrorAnswer,
            "description": description,
            "headers": headers,
            "content": {"application/json": {"example": ErrorAnswer(error=refusal.problem).model_dump()}},
        }
    return found


def describe(document: dict[str, Any], models: list[dict[str, Any]], keys: bool) -> dict[str, Any]:
    """FastAPI's document, made true.

    Args:
        models: as `Engine.models` has them.
        keys: whether a key is asked for.
    """
    schemas = document["components"]["schemas"]
    _, events = models_json_schema(
        [(event, "serialization") for event in _EVENTS.values()], ref_template=_REF
    )
    schemas |= events["$defs"]
    # Our errors stand where FastAPI's own would.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    ids = [model["id"] for model in models]
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for parameter in operation.get("parameters", ()):
                parameter["schema"]["enum"] = ids
    _bound(schemas["ImageRequest"]["properties"], models, ids)
    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    document["info"]["description"] = ABOUT
    return document


def _bound(properties: dict[str, Any], models: list[dict[str, Any]], ids: list[str]) -> None:
    openais = {"type": "string", "pattern": f"^{OPENAIS_MODEL}$"}
    text, null = properties["model"]["anyOf"]
    properties["model"]["anyOf"] = [text | {"enum": ids}, openais, null]
    limits = [model["limits"] for model in models]
    for parameter in parameters(but={"prompt", "model", "width", "height", "seed", "job"}):
        if bounds := parameter.widest(limits):
            name = THEIRS.get(parameter.name, parameter.name)
            properties[name] |= dict(zip(("minimum", "maximum"), bounds, strict=True))
    properties["partial_images"]["maximum"] = max(MOST_PARTIALS, properties["steps"]["maximum"])
