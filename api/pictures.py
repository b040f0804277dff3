"""A drawing's pictures as files: JPEG previews while it runs, the PNGs at its end. Gradio's clients and pages
look for files at one of Gradio's own addresses (6.31); there Stepwise serves pictures, and nothing else.

They are read from the job's events (jobs/store/pictures.py): no copy of them is made, by us or by Gradio.
"""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gradio import FileData
from gradio.route_utils import API_PREFIX
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.server.prefix_routes import PrefixRoute
from jobs.store.log_names import name_of
from jobs.store.pictures import find_picture, picture_name
from pipeline.events import Event
from pipeline.request import Job

FOLDER = "/pictures"
"""What the paths that clients see begin with. There is no such folder: Gradio wants a path."""
ADDRESS = f"{API_PREFIX}/file="
QUALITY = 100
"""Of a JPEG or WebP made of a PNG, where nobody says."""
_PATH = re.compile(
    rf"{FOLDER}/(?P<job>[0-9a-f]{{32}})/(?P<picture>[0-9a-f]{{32}})(-(?P<quality>[0-9]{{1,2}}|100))?"
    r"/(?P<name>(preview|[0-9]+)\.(?P<kind>png|jpeg|webp|jpg))"
)
_GONE = "There is no such picture here, or no longer: pictures are deleted after a while."


class PictureFiles:
    """Gives pictures addresses, and serves them for as long as their job's events are kept."""

    def __init__(self, logs: Path) -> None:
        """logs: the folder of the jobs' events."""
        self._logs = logs
        self._converting = asyncio.Lock()  # one at a time: who asks for a thousand takes one core, not all

    @staticmethod
    def path(file: dict[str, Any]) -> str:
        """Return where one of these files is served, behind the server's address."""
        return f"{ADDRESS}{quote(file['path'])}"

    def gallery(self, event: Event) -> list[dict[str, Any]]:
        """Return the event's pictures in the shape of a gallery: previews while it runs, then the finished
        PNGs (and, of a stopped drawing, the last preview of the image it was at)."""
        finished = event.images if event.last else ()
        job, prompt = event.job, event.job.prompt
        files = [self.file(job, png, f"{job.seed + index}.png") for index, png in enumerate(finished)]
        files += [self.file(job, preview, "preview.jpg") for preview in event.previews[len(finished) :]]
        return [{"image": file, "caption": prompt} for file in files]

    def file(self, job: Job, picture: bytes, name: str, quality: int | None = None) -> dict[str, Any]:
        """Return one picture of a job's events, as Gradio's clients expect a file.

        Args:
            name: what it is called when somebody saves it. Where its ending is another than the picture's
                own, it is converted each time that it is fetched. quality: of the conversion, 0 to 100.
        """
        how = "" if quality is None else f"-{quality}"
        path = f"{FOLDER}/{name_of(job.id)}/{picture_name(picture)}{how}/{name}"
        return FileData(path=path, orig_name=name).model_dump()

    def route(self) -> Route:
        """Return the route that serves them. It stands before Gradio's own, which reads the server's
        files."""
        return PrefixRoute(ADDRESS + "{path:path}", self._serve)

    async def _serve(self, request: Request) -> Response:
        asked = _PATH.fullmatch(request.path_params["path"])
        if asked is None:
            return JSONResponse({"detail": _GONE}, 404)
        try:
            picture = await asyncio.to_thread(find_picture, self._logs, asked["job"], asked["picture"])
        except OSError as error:
            words = f"This picture can't be read: {error.strerror or error}. Try again later."
            return JSONResponse({"detail": words}, 503)
        if picture is None:
            return JSONResponse({"detail": _GONE}, 404)
        kind = asked["kind"].replace("jpg", "jpeg")
        if picture.startswith(b"\x89PNG") and kind != "png":
            quality = QUALITY if asked["quality"] is None else int(asked["quality"])
            async with self._converting:
                picture = await asyncio.to_thread(converted, picture, kind, quality)
        headers = {
            "Content-Disposition": f'inline; filename="{asked["name"]}"',
            "X-Content-Type-Options": "nosniff",
        }
        return Response(picture, media_type=f"image/{kind}", headers=headers)


def converted(png: bytes, kind: str, quality: int) -> bytes:
    """Return a PNG as a `jpeg` or `webp` of this quality, 0 to 100. It takes its time: not for an event
    loop."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").save(buffer, kind.upper(), quality=quality)
    return buffer.getvalue()
