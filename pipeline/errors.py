"""The errors a person may read, all in one place, and the one map from lower layers' exceptions to them.

Each says what happened and what to do about it. Nothing here imports torch: libraries are recognised
by the classes they raise, looked up only if the library is already loaded.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any


class StepwiseError(Exception):
    """An error whose words are meant for the person who asked."""


class CatalogueError(StepwiseError):
    """models.yaml can't be used: names the file, the line, the key and the remedy."""


class InvalidRequest(StepwiseError):
    """Parameters are out of their bounds. `problems` maps each parameter's name to a sentence that names
    it, its value and its bound."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = problems


class UnknownModel(InvalidRequest):
    """No model has this id: names the known ones."""


class ModelUnavailable(StepwiseError):
    """The model is known but can't run here: says what is missing and where to get it."""


class Busy(StepwiseError):
    """The line is full: says how long it is and to come back."""


class WeightsError(StepwiseError):
    """Weights can't be fetched or read: names the model, the cause and the remedy."""


class OutOfMemory(StepwiseError):
    """The device ran out of memory: says which setting is cheaper."""


class NonFiniteLatents(StepwiseError):
    """The numbers overflowed: there is no picture to show, and a black one would be a lie."""


class DrawingFailed(StepwiseError):
    """Anything else that went wrong while drawing; the log has the traceback."""


class Stopped(Exception):
    """Raised inside a drawing's thread once its stop flag is seen; never reaches a reader."""


def quoted(value: Any, longest: int = 60) -> str:
    """A value as its sender wrote it (JSON), for a message: short, and safe to encode."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextlib.contextmanager
def explained(model: str, license_url: str) -> Iterator[None]:
    """Turns the exceptions of torch, huggingface_hub and safetensors into the family above.

    Args:
        model: the model's name, for the message.
        license_url: where its licence is accepted.
    """
    try:
        yield
    except (StepwiseError, Stopped):
        raise
    except Exception as error:
        raise _translate(error, model, license_url) from error


def _translate(error: Exception, model: str, license_url: str) -> StepwiseError:
    if _is(error, "torch", "OutOfMemoryError"):
        return OutOfMemory(
            f"{model} ran out of memory on this device. Try a smaller width and height or fewer images."
        )
    # Gated is a subclass of not-found (huggingface_hub 2.4), so it is asked first.
    if _is(error, "huggingface_hub.errors", "GatedRepoError"):
        return WeightsError(
            f"{model} is gated: accept its licence at {license_url} and set HF_TOKEN to a token "
            "(scope: read) of the account that accepted it."
        )
    if _is(error, "huggingface_hub.errors", "RepositoryNotFoundError"):
        return WeightsError(
            f"The Hub knows no repository for {model}, or the token may not see it: check `source` in "
            "models.yaml, and HF_TOKEN."
        )
    if _is(error, "huggingface_hub.errors", "LocalEntryNotFoundError") or isinstance(
        error, ConnectionError | TimeoutError
    ):
        return WeightsError(
            f"{model} isn't on this machine and the Hub can't be reached: check the network and try again."
        )
    if _is(error, "safetensors", "SafetensorError"):
        return WeightsError(
            f"A weights file of {model} is damaged ({error}): delete it from the cache and try again."
        )
    if isinstance(error, OSError):
        return WeightsError(f"The weights of {model} can't be read: {error}")
    return DrawingFailed(
        f"{model} could not finish this picture ({type(error).__name__}). The server's log has the details; "
        "try again, or with other settings."
    )


def _is(error: Exception, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
