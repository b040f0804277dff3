"""What the services that draw for us say when they don't, in words for whoever asked for the picture: Hugging
Face's Inference Providers, and ZeroGPU. The errors themselves are errors.py's.
"""

from __future__ import annotations

import concurrent.futures
import re
from typing import Any

from pipeline.errors import ProviderError, QuotaExceeded, StepwiseError, ZeroGpuError, is_a, quoted
from pipeline.proxies import unusable

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
    if is_a(error, hub, "GatedRepoError"):
        status = 403
    elif is_a(error, hub, "RepositoryNotFoundError") or isinstance(error.__cause__, StopIteration):
        status = 404  # the Hub itself says 401, as of a private one; StopIteration: it lists no provider
    if status is not None:
        return ProviderError(_status_words(error, status, model, source, license_url, secret))
    if isinstance(error, TimeoutError | concurrent.futures.TimeoutError):
        return ProviderError(
            f"The provider gave no picture of {model} within {timeout:g} s. Try again, or with fewer steps "
            "or a smaller size; `timeout` in models.yaml may allow more."
        )
    if is_a(error, "httpx2", "ConnectError") or is_a(error, "httpx2", "ProxyError"):
        return ProviderError(
            f"The provider of {model} can't be reached from this server. Try again; if that doesn't help, "
            f"whoever runs the server checks its network.{unusable()}"
        )
    if isinstance(error, ConnectionError) or is_a(error, "httpx2", "TransportError"):
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
    said = str(getattr(error, "message", "")) if is_a(error, "gradio", "Error") else str(error)
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
    if is_a(error, "httpx", "TransportError"):
        return ZeroGpuError("ZeroGPU can't be reached from this Space. Try again in a minute.")
    return ZeroGpuError(f"ZeroGPU gave no GPU ({quoted(said or type(error).__name__, 200)}). Try again.")


def _quota_words(said: str, needed: float) -> str:
    if "Space app" in said:  # `spaces` found no visitor's token: see docs/zerogpu.md
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
