"""A drawing's pictures as files that Gradio serves: jpeg previews while it runs, the PNGs at the end."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gradio import FileData

from pipeline.events import Event


class PictureFiles:
    """Writes pictures under `folder`, Gradio's own cache, whose age bound deletes them again."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def gallery(self, event: Event) -> list[dict[str, Any]]:
        """The event's pictures in the shape of a gallery: previews while it runs, then the finished PNGs
        (and, of a stopped drawing, the last preview of the image it was at)."""
        finished = event.images if event.last else ()
        seed, prompt = event.job.seed, event.job.prompt
        files = [self.write(png, f"{seed + index}.png") for index, png in enumerate(finished)]
        files += [self.write(preview, "preview.jpg") for preview in event.previews[len(finished) :]]
        return [{"image": file, "caption": prompt} for file in files]

    def write(self, picture: bytes, name: str) -> dict[str, Any]:
        """One picture's file, as Gradio's clients expect it. The same picture is written once."""
        path = self._folder / hashlib.sha256(picture).hexdigest() / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
        return FileData(path=str(path), orig_name=name).model_dump()
