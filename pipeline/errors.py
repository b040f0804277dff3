"""The errors a person may read, all in one place: each says what happened and what to do about it. What turns
lower layers' exceptions into them is library_errors.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any, ClassVar

AWAY = 60.0
"""Seconds after which a server that ends may be followed by another, as callers are told."""


class StepwiseError(Exception):
    """An error whose words are meant for the person who asked. `code` is its kind, for programs."""

    code: ClassVar[str] = "failed"


class CatalogueError(StepwiseError):
    """models.yaml can't be used: names the file, the line, the key and the remedy."""


class SettingError(StepwiseError):
    """An environment variable can't be used: names it, what it may be, and its value but for
    secrets."""


class InvalidRequest(StepwiseError):
    """Parameters are out of their bounds. `problems` maps each parameter's name to a sentence that names
    it, its value and its bound."""

    code = "invalid_request"

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = problems


class UnknownModel(InvalidRequest):
    """No model has this id: names the known ones."""

    code = "model_not_found"


class ModelUnavailable(StepwiseError):
    """The model is known but can't run here: says what is missing and where to get it."""

    code = "model_unavailable"


class Busy(StepwiseError):
    """The line is full: says how long it is and when to come back. `retry_after`: seconds until a place is
    free, None while that is unknown."""

    code = "busy"

    def __init__(self, words: str, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.retry_after = retry_after

    def __str__(self) -> str:
        when = "in a minute" if self.retry_after is None else f"in about {roughly(self.retry_after)}"
        return f"{self.args[0]} Try again {when}."


class ServerEnding(Busy):
    """The server is ending, and begins nothing more: says when there may be another."""

    code = "server_ending"

    def __init__(self, words: str = "This server is ending, and takes no new drawings.") -> None:
        super().__init__(words, AWAY)


class RateLimited(Busy):
    """Too many within too short a time, from one person: says how many may be, and when to come back."""

    code = "rate_limited"


class WeightsError(StepwiseError):
    """Weights can't be fetched or read: names the model, the cause and the remedy."""

    code = "weights_error"


class OutOfMemory(StepwiseError):
    """The device ran out of memory: says which setting is cheaper."""

    code = "out_of_memory"


class NonFiniteLatents(StepwiseError):
    """The numbers overflowed: there is no picture to show, and a black one would be a lie."""

    code = "non_finite_latents"


class ProviderError(StepwiseError):
    """An Inference Provider gave no picture: says why, and who can do what about it."""

    code = "provider_error"


class QuotaExceeded(StepwiseError):
    """The visitor's daily quota of ZeroGPU doesn't allow this drawing: says what does, and when it will."""

    code = "quota_exceeded"


class ZeroGpuError(StepwiseError):
    """ZeroGPU gave no GPU, or took it back before there was a picture: says why, and what to do."""

    code = "zerogpu_error"


class DiskFull(StepwiseError):
    """Nothing more can be written down: says what makes room."""

    code = "disk_full"


class StoreError(StepwiseError):
    """The file that jobs are written down in can't be used: names it, the cause and the remedy."""

    code = "store_error"


class InputTooLarge(StepwiseError):
    """A file that a request brings along is larger than it may be: says how large that is."""

    code = "input_too_large"


class InputNotFound(StepwiseError):
    """A request names a file that isn't here for whoever asks, is no longer, or is damaged: says which, and
    to send it again."""

    code = "input_not_found"


class WorkerDied(StepwiseError):
    """What drew is gone, the process or its hold of the device, and the drawing with it: says of what, and
    what to do."""

    code = "worker_died"


class DrawingFailed(StepwiseError):
    """Anything else that went wrong while drawing; the log has the traceback."""

    code = "drawing_failed"


class Stopped(Exception):
    """Raised inside a drawing's thread once its stop flag is seen; never reaches a reader."""


def roughly(seconds: float) -> str:
    """A time to come, as precisely as one that was estimated should be told."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def quoted(value: Any, longest: int = 60) -> str:
    """A value as its sender wrote it (JSON), for a message: short, and safe to encode."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_a(error: BaseException, module: str, name: str) -> bool:
    """Whether an error is of this class, where the library that has it is loaded."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
