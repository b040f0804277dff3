"""A drawing's pictures as files that Gradio serves: jpeg previews while it runs, the PNGs at the end."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gradio import FileData
from gradio.blocks import Block
from gradio.route_utils import API_PREFIX

from pipeline.events import Event


class PictureFiles:
    """Writes pictures to Gradio's own cache, in the name of one block: Gradio deletes a block's files when
    they pass the age bound of `delete_cache`, and all of them when the server ends."""

    def __init__(self, block: Block) -> None:
        self._block = block

    @staticmethod
    def path(file: dict[str, Any]) -> str:
        """Where Gradio (6.31) serves one of these files, behind the server's address."""
        return f"{API_PREFIX}/file={quote(file['path'])}"

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
        path = Path(self._block.GRADIO_CACHE) / hashlib.sha256(picture).hexdigest() / name
        if path.exists():
            path.touch()  # its age counts from now
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = path.with_name(f"{uuid.uuid4().hex}.part")  # a kill in the middle leaves no half picture
            whole.write_bytes(picture)
            whole.replace(path)
        self._block.temp_files.add(str(path))
        return FileData(path=str(path), orig_name=name).model_dump()
