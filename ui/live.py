"""What the picture's frame shows: an event as the plain data that live.js draws."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from api.pictures import PictureFiles
from pipeline.errors import roughly
from pipeline.events import DRAWN, Event

PHASES = {
    "queued": "Waiting for a turn",
    "downloading": "Downloading the model",
    "loading": "Loading the model",
    "encoding": "Reading the prompt",
    "denoising": "Drawing",
    "decoding": "Finishing",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
}


def live_value(event: Event, files: PictureFiles) -> dict[str, Any]:
    """The frame for this event. Previews travel inside it, as data: a URL of its own for each would be
    cancelled by the next on a slow line. Finished pictures are files, to be downloaded."""
    job = event.job
    finished = [files.file(job, png, f"{job.seed + k}.png")["path"] for k, png in enumerate(event.images)]
    value: dict[str, Any] = {
        "job": job.id,
        "state": event.phase if event.last else "running",
        "announce": _announce(event),
        "line": _line(event),
        "progress": _progress(event),
        "pictures": [_url(path) for path in finished] + [_data(p) for p in event.previews[len(finished) :]],
        "finished": len(finished),
        "count": job.images,
        "prompt": job.prompt,
        "warnings": list(event.warnings),
        "error": event.error,
    }
    if event.last and event.previews:
        value["item"] = _item(event, value["pictures"])
    return value


def unknown(job: Any) -> dict[str, Any]:
    """The frame where nobody knows the job that this tab had not seen end: the page says so.

    Args:
        job: as of `refused`.
    """
    return {"state": "unknown", "job": job}


def refused(job: Any, words: str, problems: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The frame when a job was not accepted: the picture stays as it is.

    Args:
        job: the id that the page gave it: a value equal to the one before wouldn't reach the page (Gradio
            6.31), which would wait for ever.
        problems: what is wrong with which parameter, for its field.
    """
    return {
        "state": "refused",
        "job": job,
        "announce": words,
        "line": "",
        "error": words,
        "problems": dict(problems or {}),
    }


def _announce(event: Event) -> str:
    """What a screen reader says: the same words for as long as nothing but the step changes."""
    if event.error is not None:
        return event.error
    if event.job.images > 1 and event.phase in ("denoising", "decoding"):
        return f"Drawing image {event.image} of {event.job.images}."
    return f"{PHASES[event.phase]}."


def _line(event: Event) -> str:
    job = event.job
    parts = [PHASES[event.phase]]
    match event.phase:
        case "queued" if event.preload and event.position == 1:
            parts = [f"Waiting while {event.preload} is loaded"]
        case "queued" if event.preload:
            parts = [f"{PHASES['queued']}, {event.position} ahead, one of them to load {event.preload}"]
        case "queued" if event.position:
            parts = [f"{PHASES['queued']}, {event.position} ahead"]
        case "downloading" if not event.total:
            parts = ["Looking up the model’s files"]
        case "downloading":
            parts.append(amount(event.done, event.total))
        case "loading":
            parts.append(f"part {min(event.done + 1, event.total)} of {event.total}")
        case "denoising" if event.provider is not None:
            who = "a provider" if event.provider == "auto" else event.provider
            image = f", image {event.image}/{job.images}" if job.images > 1 else ""
            parts = [f"{PHASES['denoising']} at {who}{image}", "no previews"]
        case "denoising":
            image = f"image {event.image}/{job.images}, " if job.images > 1 else ""
            parts = [f"{image}step {event.step}/{job.steps}"]
            if event.eta is not None:
                parts.append(
                    f"{event.eta:.1f} s left" if event.eta < 90 else f"{event.eta / 60:.0f} min left"
                )
        case "finished":
            parts = [f"{job.width} × {job.height}", f"{job.steps} steps", f"{event.seconds:.1f} s"]
        case "stopped" if event.provider is None:
            parts.append(f"at step {event.step}/{job.steps}")
    if event.phase == "queued" and event.eta is not None:
        parts.append(f"about {roughly(event.eta)} left")
    if event.phase not in ("queued", "downloading", "loading", "failed"):
        parts.append(f"seed {job.seed}")
    return " · ".join(parts)


def amount(done: int, total: int) -> str:
    """Bytes of bytes, as people say it."""
    unit, size = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
    return f"{done / size:.1f} of {total / size:.1f} {unit}"


def _progress(event: Event) -> float | None:
    """How much of the whole is done, 0 to 1; None where nobody can see."""
    if event.last:
        return 1.0
    if event.phase == "denoising" and event.provider is not None:
        return None
    if event.phase in ("downloading", "loading"):
        return event.done / event.total if event.total else 0.0
    return (event.image - 1 + event.step / event.steps) / event.job.images


def _item(event: Event, pictures: list[str]) -> dict[str, Any]:
    """What this visit's history keeps of a drawing: its previews, pictures and settings."""
    job = event.job
    return {
        "previews": [_data(preview) for preview in event.previews],
        "pictures": [picture for picture in pictures if not picture.startswith("data:")],
        "line": _line(event),
        "settings": {name: getattr(job, name) for name in DRAWN},
    }


def _url(path: str) -> str:
    """Relative, so that it holds behind any proxy's path."""
    return f"gradio_api/file={path}"


def _data(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
