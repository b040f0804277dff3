"""The errors a person may read, all in one place, and the one map from lower layers' exceptions to them.

Each says what happened and what to do about it. Nothing here imports torch: libraries are recognised
by the classes they raise, looked up only if the library is already loaded.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, ClassVar


class StepwiseError(Exception):
    """An error whose words are meant for the person who asked. `code` is its kind, for programs."""

    code: ClassVar[str] = "failed"


class CatalogueError(StepwiseError):
    """models.yaml can't be used: names the file, the line, the key and the remedy."""


class SettingError(StepwiseError):
    """An environment variable can't be used: names it and the remedy, never its value."""


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
    """The line is full: says how long it is and to come back. `retry_after`: seconds until a place is free,
    None while that is unknown."""

    code = "busy"

    def __init__(self, words: str, retry_after: float | None = None) -> None:
        super().__init__(words)
        self.retry_after = retry_after


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


class DrawingFailed(StepwiseError):
    """Anything else that went wrong while drawing; the log has the traceback."""

    code = "drawing_failed"


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no room: torch says so itself; cuBLAS and cuDNN, where it is they that lack it."""
    return _is(error, "torch", "OutOfMemoryError") or "STATUS_ALLOC_FAILED" in str(error)


def _translate(error: Exception, model: str, license_url: str) -> StepwiseError:
    if is_out_of_memory(error):
        return OutOfMemory(
            f"{model} ran out of memory on this device. Try a smaller width and height or fewer images."
        )
    if words := _hub_words(error, model, license_url):
        return WeightsError(words)
    if _is(error, "safetensors", "SafetensorError"):
        return WeightsError(
            f"A weights file of {model} is damaged ({error}): delete it from the cache and try again."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return WeightsError(
            f"The disk became full while {model} was fetched. Free some of it, or set HF_HOME to a folder on "
            "a larger disk, and try again: what is complete is kept."
        )
    if isinstance(error, OSError):
        return WeightsError(f"The weights of {model} can't be read: {_without_folders(str(error))}")
    return DrawingFailed(
        f"{model} could not finish this picture ({type(error).__name__}). The server's log has the details; "
        "try again, or with other settings."
    )


def _without_folders(text: str) -> str:
    """The text with each path cut to its last name: where things lie on the server is for its log."""
    return re.sub(r"(?<![\w:/])(?:/[^/\s'\":]+)+/(?=[^/\s'\":])", "", text)


def _hub_words(error: Exception, model: str, license_url: str) -> str:
    """What an exception of huggingface_hub (2.4) means; empty for any other."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    # Gated is a subclass of not-found, so it is asked first.
    if _is(error, "huggingface_hub.errors", "GatedRepoError"):
        if status == 403:
            return (
                f"{model} is gated, and the account of HF_TOKEN may not have it yet: accept its licence at "
                f"{license_url} with that account, and try again. A fine-grained token also needs the "
                "permission to read gated repositories."
            )
        return (
            f"{model} is gated: accept its licence at {license_url} and set HF_TOKEN to a token "
            "(scope: read) of the account that accepted it."
        )
    if _is(error, "huggingface_hub.errors", "RepositoryNotFoundError"):
        return (
            f"The Hub knows no repository for {model}, or the token may not see it: check `source` in "
            "models.yaml, and HF_TOKEN."
        )
    if _is(error, "huggingface_hub.errors", "RevisionNotFoundError"):
        return f"The Hub has no such revision of {model}: check `revision` in models.yaml."
    if _is(error, "huggingface_hub.errors", "OfflineModeIsEnabled"):
        return (
            f"{model} isn't on this machine, and HF_HUB_OFFLINE forbids to fetch it: unset it and try again."
        )
    if status == 401:
        return (
            "The Hub doesn't accept HF_TOKEN: set it to a token that is valid (scope: read), from "
            "https://huggingface.co/settings/tokens."
        )
    if status == 429:
        return (
            f"The Hub lets this address fetch no more for now (429), so {model} isn't here yet. Wait some "
            "minutes and try again; with HF_TOKEN set it allows more."
        )
    if status is not None and status >= 500:
        return f"The Hub has a fault of its own ({status}), so {model} can't be fetched. Try again later."
    if _is(error, "httpx2", "TransportError") and not _is(error, "httpx2", "ConnectError"):
        return (
            f"The connection to the Hub broke off while {model} was fetched. Check the network and try "
            "again: files that are complete are kept."
        )
    unreachable = isinstance(error, ConnectionError | TimeoutError) or _is(error, "httpx2", "ConnectError")
    if unreachable or _is(error, "huggingface_hub.errors", "LocalEntryNotFoundError"):
        # The library says this of several causes; which one it was stands behind it.
        cause = error.__cause__
        words = _hub_words(cause, model, license_url) if isinstance(cause, Exception) else ""
        return words or (
            f"{model} isn't on this machine and the Hub can't be reached: check the network and try again."
        )
    return ""


_PROVIDER_SAYS = {
    401: "Hugging Face doesn't accept this server's HF_TOKEN: it is wrong, or no longer valid. Whoever runs "
    "the server makes a new one at https://huggingface.co/settings/tokens.",
    402: "The account of this server's HF_TOKEN has no credits left for {model}, or none for this provider. "
    "Whoever runs the server can add some at https://huggingface.co/settings/billing.",
    403: "This server's HF_TOKEN may not have {model} drawn. Whoever runs the server lets it make calls to "
    "Inference Providers, at https://huggingface.co/settings/tokens, and accepts the licence at {license}.",
    404: "No provider draws {model}, or no longer. Choose another model; whoever runs the server finds who "
    "draws it at https://huggingface.co/{source} and mends `source` or `provider` in models.yaml.",
    413: "The provider takes no request of this size for {model}. Try a shorter prompt.",
    429: "The provider takes no more drawings from this server for now. Try again in {wait}.",
    503: "{model} is being loaded by the provider, or is not served just now. Try again in {wait}.",
    504: "The provider took too long over this picture. Try again, or with fewer steps or a smaller size.",
}
"""By HTTP status, what an Inference Provider, or Hugging Face's router in front of it, says."""
_SAME_AS = {408: 504, 410: 404}
_LONGEST_WAIT = 86_400
"""Seconds: a Retry-After beyond a day is no time to name."""


def provider_error(
    error: Exception, *, model: str, source: str, license_url: str, timeout: float, secret: str
) -> StepwiseError:
    """What went wrong with a call to an Inference Provider, in words for whoever asked for the picture.

    Args:
        error: of huggingface_hub (2.4), its HTTP library, Pillow, or of waiting for them.
        model, source, license_url: the model's name, its Hub id, and where its licence is accepted.
        timeout: seconds that one picture might take.
        secret: the token, which is struck out of what the provider said.
    """
    if isinstance(error, StepwiseError):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    hub = "huggingface_hub.errors"
    if _is(error, hub, "GatedRepoError"):
        status = 403
    elif _is(error, hub, "RepositoryNotFoundError") or isinstance(error.__cause__, StopIteration):
        status = 404  # the Hub itself says 401, as of a private one; StopIteration: it lists no provider
    if status is not None:
        return ProviderError(_status_words(error, status, model, source, license_url, secret))
    if isinstance(error, TimeoutError | concurrent.futures.TimeoutError):
        return ProviderError(
            f"The provider gave no picture of {model} within {timeout:g} s. Try again, or with fewer steps "
            "or a smaller size; `timeout` in models.yaml may allow more."
        )
    if _is(error, "httpx2", "ConnectError") or _is(error, "httpx2", "ProxyError"):
        return ProviderError(
            f"The provider of {model} can't be reached from this server. Try again; if that doesn't help, "
            "whoever runs the server checks its network."
        )
    if isinstance(error, ConnectionError) or _is(error, "httpx2", "TransportError"):
        return ProviderError(f"The connection broke off before the picture of {model} had come. Try again.")
    if type(error) is ValueError:  # the library's own words, of what a provider doesn't serve or didn't do
        return ProviderError(
            f"{model} could not be drawn by this provider: {quoted(without(secret, str(error)), 300)}. Try "
            "again, or another model; whoever runs the server checks `source` and `provider` in models.yaml."
        )
    return ProviderError(
        f"What the provider gave for {model} is no picture ({type(error).__name__}), or a damaged one. Try "
        "again; the server's log has the details."
    )


def _status_words(error: Any, status: int, model: str, source: str, license_url: str, secret: str) -> str:
    if status in (400, 422):
        said = str(getattr(error, "server_message", None) or error.response.text).strip()
        said = "" if said.startswith("<") else f": {quoted(without(secret, said), 300)}"
        return f"The provider refuses these settings for {model}{said}. Change them, or take the model's own."
    if words := _PROVIDER_SAYS.get(_SAME_AS.get(status, status)):
        response = getattr(error, "response", None)
        after = "" if response is None else response.headers.get("retry-after", "")
        named = re.fullmatch("[0-9]{1,5}", after) and 0 < int(after) <= _LONGEST_WAIT
        wait = f"{int(after)} s" if named else "a minute"
        return words.format(model=model, source=source, license=license_url, wait=wait)
    if status >= 500:
        return (
            f"The provider failed at this picture of {model} (HTTP {status}), through no fault of its "
            "settings. Try again later; another `provider` in models.yaml may do better."
        )
    return f"The provider doesn't draw {model} (HTTP {status}). Try again later, or another model."


_SAVING = "Fewer steps, a smaller size or fewer images need less; Sketch needs none."


def zerogpu_error(error: Exception, model: str, needed: float) -> StepwiseError:
    """What went wrong with a call to ZeroGPU, in words for whoever asked for the picture.

    Args:
        error: of `spaces` (0.51), which raises Gradio's with a title of its own, or of its HTTP library.
        model: the model's name.
        needed: seconds of GPU that the drawing asked for.
    """
    title = str(getattr(error, "title", ""))
    said = str(getattr(error, "message", "")) if _is(error, "gradio", "Error") else str(error)
    if "No GPU was available" in said:
        return ZeroGpuError(
            "No GPU became free on ZeroGPU within a minute. Try again; who is signed in to Hugging Face is "
            "served first."
        )
    if title == "ZeroGPU quota exceeded":
        return QuotaExceeded(_quota_words(said, needed))
    if title == "ZeroGPU illegal duration":
        return QuotaExceeded(
            f"This drawing needs {needed:.0f} s of GPU, more than ZeroGPU lends for one drawing. {_SAVING}"
        )
    if title == "ZeroGPU pending credits exceeded":
        return QuotaExceeded("Drawings of yours on ZeroGPU are still running: try again when one has ended.")
    if "proxy token" in said:
        return ZeroGpuError("ZeroGPU no longer knows this page's visitor: reload the page and try again.")
    if "task aborted" in said:
        return ZeroGpuError(
            "ZeroGPU ended the drawing, or its process died: it may have taken longer than the "
            f"{needed:.0f} s it asked for. Try again, or with fewer steps, a smaller size or fewer images."
        )
    if title == "ZeroGPU worker error":
        return ZeroGpuError(f"The GPU's process failed at {model} ({quoted(said)}). Try again.")
    if _is(error, "httpx", "TransportError"):
        return ZeroGpuError("ZeroGPU can't be reached from this Space. Try again in a minute.")
    return ZeroGpuError(f"ZeroGPU gave no GPU ({quoted(said or type(error).__name__, 200)}). Try again.")


def _quota_words(said: str, needed: float) -> str:
    if "Space app" in said:  # `spaces` found no visitor's token: see README, ZeroGPU
        return (
            "This Space's own share of ZeroGPU is used up for now: it pays where ZeroGPU can't see who asks. "
            "Use the Space's page on huggingface.co, signed in, or try again later."
        )
    left, wait = re.search(r"(-?\d+)s left", said), re.search(r"again in ([^.]*\d)", said)
    have = f"and {max(0, int(left[1]))} s are left of your daily quota" if left else "more than you have left"
    when = f" There is more in {wait[1]}, and with a Hugging Face account or PRO." if wait else ""
    return f"This drawing needs {needed:.0f} s of ZeroGPU, {have}. {_SAVING}{when}"


def without(secret: str, text: str) -> str:
    """The text with the secret, wherever it stands in it, struck out."""
    return text.replace(secret, "…") if secret else text


def _is(error: BaseException, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(error, kind)
