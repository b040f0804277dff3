"""What a client may ask for, and what it becomes.

A `GenerationRequest` is validated on its own; null means "the model's default". `resolve` (resolve.py) makes
a `Job` of it: no nulls left, seed chosen, size snapped or refused. A job is plain data: it pickles, goes to
JSON and back, and drawn again gives the same picture. The fields of both are the declarations of
parameters.py.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from pipeline.errors import InvalidRequest, quoted
from pipeline.parameters import MAX_PROMPT, MAX_SEED, Kind, Parameter, instead, parameters

LONGEST_ID = 64
"""Characters of a job's id as a client writes it: 47 as URN in braces."""
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def _refuse(words: str) -> NoReturn:
    raise PydanticCustomError("refused", "{words}", {"words": words})


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        _refuse(f"must be text; got {quoted(value)}")
    if len(value) > MAX_PROMPT:
        _refuse(f"may be at most {MAX_PROMPT:,} characters long; got {len(value):,}")
    if bad := _UNPRINTABLE.search(value):
        _refuse(
            f"contains the character U+{ord(bad[0]):04X} at position {bad.start()}, which is not text; "
            "remove it"
        )
    return value.strip()


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"must be a number; got {quoted(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(f"must be a finite number; got {quoted(value)}")
    if abs(value) > 1e9:
        _refuse(f"must be a number of ordinary size; got {quoted(value)}")
    return float(value)


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(f"must be a whole number; got {quoted(value)}")
    if isinstance(value, float) and not value.is_integer():
        _refuse(f"must be a whole number; got {quoted(value)}")
    return int(value)


def _seed(value: Any) -> int | None:
    seed = _whole(value)
    if seed == -1:
        return None
    if not 0 <= seed <= MAX_SEED:
        _refuse(f"must be from 0 to {MAX_SEED} (2⁵³ − 1), or -1 for a random one; got {quoted(value)}")
    return seed


def job_id(value: Any) -> str:
    """A job's id as the job has it, however a client wrote it.

    Raises:
        ValueError: no job can have it.
    """
    # uuid.UUID itself leaves out any number of dashes.
    if not isinstance(value, str) or len(value) > LONGEST_ID:
        raise ValueError
    return str(uuid.UUID(value))


def _id(value: Any) -> str:
    try:
        return job_id(value)
    except ValueError:
        _refuse(f"must be a UUID such as {uuid.UUID(int=0)}; got {quoted(value)}")


def _or_none(check):
    return BeforeValidator(lambda value: None if value is None else check(value))


Prompt = Annotated[str, BeforeValidator(_text)]
VALUES: dict[Kind, Any] = {
    "text": Annotated[str | None, _or_none(_text)],
    "number": Annotated[float | None, _or_none(_number)],
    "whole": Annotated[int | None, _or_none(_whole)],
    "seed": Annotated[int | None, _or_none(_seed)],
    "id": Annotated[str | None, _or_none(_id)],
}
"""What a client may send as a value of each kind, every other refused in words: the dialects' own
descriptions of a request are made of the same. Null is allowed."""


def _asked(parameter: Parameter) -> tuple[Any, Any]:
    return (Prompt, ...) if parameter.required else (VALUES[parameter.kind], None)


_asked_fields: dict[str, Any] = {one.name: _asked(one) for one in parameters()}
_AsAsked: Any = create_model("_AsAsked", **_asked_fields)


class GenerationRequest(_AsAsked):
    """What a client sent: a field for every parameter. Only `prompt` is required; null means the model's
    default.

    Sizes in pixels; seed 0 to 2⁵³ − 1, null or -1 for a random one; job: the client's own UUID, or null.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    if TYPE_CHECKING:  # those that the code names
        prompt: str
        model: str | None
        negative_prompt: str | None
        width: int | None
        height: int | None
        seed: int | None
        images: int | None
        job: str | None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> GenerationRequest:
        """Checks everything that can be checked without a model.

        Raises:
            InvalidRequest: every complaint, each naming its parameter, value and bound.
        """
        try:
            request = cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidRequest(dict(_problem(one) for one in error.errors())) from None
        if not request.prompt:
            raise InvalidRequest({"prompt": "prompt is empty: write what to draw."})
        return request


NAMES = {name: name for name in GenerationRequest.model_fields} | {"size": "width and height"}
"""What `instead` may say to a client of /generate."""


def _problem(error: Any) -> tuple[str, str]:
    name = quoted(str(error["loc"][0]))[1:-1]
    if error["type"] == "extra_forbidden":
        known = ", ".join(GenerationRequest.model_fields)
        return name, f"{name} is not a parameter; the parameters are {known}.{instead(name, NAMES)}"
    return name, f"{name} {'is required' if error['type'] == 'missing' else error['msg']}."


SHORTEST = 4
"""Characters of a prompt that is taken out of a log: a shorter one is part of too many words."""


_DRAWN: dict[Kind, Any] = {
    "text": str,
    "number": Annotated[float, Field(allow_inf_nan=False)],
    "whole": int,
    "seed": int,
}
"""What a job's parameters are, by kind."""


def _drawn(parameter: Parameter) -> tuple[Any, Any]:
    """What was written down before the parameter was declared has its default, where that is any model's."""
    return _DRAWN[parameter.kind], ... if parameter.default is None else parameter.default


_drawn_fields: dict[str, Any] = {one.name: _drawn(one) for one in parameters(but={"job"})}
_AsDrawn: Any = create_model("_AsDrawn", **_drawn_fields)


class Job(_AsDrawn):
    """A request resolved against a model's spec: plain data that says all that determines the pictures. It
    has a field for every parameter; `job` is its `id`.

    Image k (from 0) is drawn from seed + k.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    negative_prompt: str
    images: int = Field(ge=1)
    warnings: tuple[str, ...] = ()

    if TYPE_CHECKING:  # those that the engine handles specially; of the others, mypy knows no type
        model: str
        prompt: str
        width: int
        height: int
        seed: int

    @property
    def short_id(self) -> str:
        """As much of the id as tells jobs apart in a log: whoever knows all of it can stop the job."""
        return self.id[:8]

    def without_prompts(self, text: str) -> str:
        """A text for the log, such as a library's exception, with the job's own texts taken out."""
        for prompt in (self.prompt, self.negative_prompt):
            if len(prompt) >= SHORTEST:
                text = text.replace(prompt, "…").replace(repr(prompt)[1:-1], "…")
        return text
