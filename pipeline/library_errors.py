"""The one map from lower layers' exceptions, of torch, huggingface_hub, safetensors and the system, to the
errors of errors.py. Nothing here imports those libraries: they are recognised by the classes they raise,
looked up only if the library is already loaded.
"""

from __future__ import annotations

import contextlib
import errno
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import (
    DrawingFailed,
    OutOfMemory,
    StepwiseError,
    Stopped,
    WeightsError,
    WorkerDied,
    is_a,
    quoted,
)
from pipeline.proxies import unusable

HUB = "https://huggingface.co"


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
    return is_a(error, "torch", "OutOfMemoryError") or "STATUS_ALLOC_FAILED" in str(error)


_DEVICE_LOST = re.compile(
    r"device-side assert|illegal memory access|illegal instruction|misaligned address|invalid program counter"
    r"|hardware stack error|not supported on global/shared address space|unspecified launch failure"
    r"|launch timed out|uncorrectable ECC error"
)
"""The CUDA errors after which "any further CUDA work will return the same error. To continue using CUDA, the
process must be terminated and relaunched" (CUDA Runtime API, cudaError_t), in cudaGetErrorString's words."""


DEVICE_LOST = 70
"""Exit status of a worker process that can't use its device any more (EX_SOFTWARE of sysexits.h)."""


def is_device_lost(error: BaseException) -> bool:
    """Whether this process can't use its GPU any more, whatever it does: only a new one can."""
    return isinstance(error, RuntimeError) and _DEVICE_LOST.search(str(error)) is not None


def _translate(error: Exception, model: str, license_url: str) -> StepwiseError:
    if is_out_of_memory(error):
        return OutOfMemory(
            f"{model} ran out of memory on this device. Try a smaller width and height or fewer images."
        )
    if is_device_lost(error):
        cause = str(error).splitlines()[0]
        return WorkerDied(
            f"The GPU failed while it drew with {model} ({cause}), and this process can't use it any more. "
            "Try again once a new one is there; if that happens again with the same settings, try others."
        )
    if words := _hub_words(error, model, license_url):
        where = "" if hub_address() in words or hub_address() == HUB else f" HF_ENDPOINT is {hub_address()}."
        return WeightsError(words + where)
    if is_a(error, "safetensors", "SafetensorError"):
        return WeightsError(
            f"A weights file of {model} is damaged ({error}): whoever runs the server fetches or copies it "
            "again."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return WeightsError(
            f"The disk became full while {model} was fetched. Free some of it, or set HF_HOME to a folder on "
            "a larger disk, and try again: what is complete is kept."
        )
    if isinstance(error, OSError) and _in_the_cache(error):
        return WeightsError(
            f"{model} can't be kept here: the folder of HF_HOME can't be written to ({error.strerror}). Set "
            "HF_HOME to one that can, and start again."
        )
    if isinstance(error, OSError):
        return WeightsError(f"The weights of {model} can't be read: {_without_folders(str(error))}")
    return DrawingFailed(
        f"{model} could not finish this picture ({type(error).__name__}). The server's log has the details; "
        "try again, or with other settings."
    )


def _in_the_cache(error: OSError) -> bool:
    """Whether it was a folder of huggingface_hub's that couldn't be made or written to."""
    constants = sys.modules.get("huggingface_hub.constants")
    closed = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
    folders = (constants.HF_HUB_CACHE, constants.HF_HOME) if constants else ()
    # Or a folder above, which was to be made for it.
    return closed and any(
        Path(folder).is_relative_to(Path(str(error.filename)))
        or Path(str(error.filename)).is_relative_to(folder)
        for folder in folders
    )


def _without_folders(text: str) -> str:
    """The text with each path cut to its last name: where things lie on the server is for its log."""
    return re.sub(r"(?<![\w:/])(?:/[^/\s'\":]+)+/(?=[^/\s'\":])", "", text)


def _hub_words(error: Exception, model: str, license_url: str) -> str:
    """What an exception of huggingface_hub (2.4) means; empty for any other."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    # Gated is a subclass of not-found, so it is asked first.
    if is_a(error, "huggingface_hub.errors", "GatedRepoError"):
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
    if is_a(error, "huggingface_hub.errors", "RepositoryNotFoundError"):
        return (
            f"The Hub knows no repository for {model}, or the token may not see it: check `source` in "
            "models.yaml, and HF_TOKEN."
        )
    if is_a(error, "huggingface_hub.errors", "RevisionNotFoundError"):
        return f"The Hub has no such revision of {model}: check `revision` in models.yaml."
    if is_a(error, "huggingface_hub.errors", "OfflineModeIsEnabled"):
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
    if is_a(error, "httpx2", "UnsupportedProtocol") or is_a(error, "httpx2", "InvalidURL"):
        return (
            f"{model} can't be fetched: {quoted(hub_address())} is no address: set HF_ENDPOINT to one that "
            "begins with https://, or leave it out."
        )
    if is_a(error, "httpx2", "ConnectError") and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return (
            f"{model} can't be fetched: the certificate of {hub_address()} isn't trusted on this machine. "
            "Behind a proxy that opens connections, set SSL_CERT_FILE to its certificates."
        )
    if is_a(error, "httpx2", "TransportError") and not is_a(error, "httpx2", "ConnectError"):
        return (
            f"The connection to the Hub broke off while {model} was fetched. Check the network and try "
            "again: files that are complete are kept."
        )
    if is_a(error, "huggingface_hub.errors", "FileMetadataError"):
        return not_a_hub(model, "its answer lacks what the Hub says of each file (ETag, commit)")
    if is_a(error, "httpx2", "DecodingError"):
        return not_a_hub(model, "its answer can't be read")
    if status is not None:
        return not_a_hub(model, f"it answered {status}")
    unreachable = isinstance(error, ConnectionError | TimeoutError) or is_a(error, "httpx2", "ConnectError")
    if unreachable or is_a(error, "huggingface_hub.errors", "LocalEntryNotFoundError"):
        # The library says this of several causes; which one it was stands behind it.
        cause = error.__cause__
        words = _hub_words(cause, model, license_url) if isinstance(cause, Exception) else ""
        return words or (
            f"{model} isn't on this machine and the Hub can't be reached: check the network and try again. "
            f"It was asked for at {hub_address()}.{unusable()}"
        )
    return ""


def hub_address() -> str:
    """Where the Hub is asked for: HF_ENDPOINT, or its own address; without a name and password."""
    constants = sys.modules.get("huggingface_hub.constants")
    address = str(getattr(constants, "ENDPOINT", HUB))
    return re.sub(r"//[^/@]*@", "//", address)


def not_a_hub(model: str, what: str) -> str:
    """That something else answers in the Hub's place, in words.

    Args:
        what: how that shows.
    """
    return (
        f"{model} can't be fetched: what answers at {hub_address()} isn't the Hub, or a mirror that lacks a "
        f"part of it ({what}). Open that address in a browser on this machine: if the network asks for a "
        "login there, log in; if HF_ENDPOINT is set, check it."
    )
