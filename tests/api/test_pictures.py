"""Pictures by their addresses: each is kept once, in its job's events, and nothing else is served there."""

from __future__ import annotations

import errno
import io
import os
import re
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from api.pictures import PictureFiles
from jobs.queue import Queue
from jobs.store.event_log import LogWriter
from jobs.store.log_names import log_path
from pipeline.events import Event
from tests.jobs.events import JOB, life
from tests.support.queues import begin

TINY = {"prompt": "a fox", "model": "tiny", "steps": 4, "seed": 7}


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> PictureFiles:
    return PictureFiles(tmp_path)


@pytest.fixture
def http(files: PictureFiles) -> TestClient:
    return TestClient(Starlette(routes=[files.route()]))


def log(folder: Path, events: list[Event], attempt: int = 1) -> Path:
    path = log_path(folder, JOB.id, attempt)
    with LogWriter(path) as writer:
        for event in events:
            writer.append(event)
    return path


def test_every_picture_that_a_job_has_shown_is_served_out_of_its_events_and_lies_nowhere_else(
    files: PictureFiles, http: TestClient, tmp_path: Path
) -> None:
    path, events = log(tmp_path, life()), life()
    size = path.stat().st_size
    for event in events:
        for picture, one in zip(
            event.images if event.last else event.previews, files.gallery(event), strict=True
        ):
            answer = http.get(files.path(one["image"]))
            assert answer.content == picture
            assert answer.headers["content-type"] == ("image/png" if event.last else "image/jpeg")
            name = one["image"]["orig_name"]
            assert answer.headers["content-disposition"] == f'inline; filename="{name}"'
    assert [one["image"]["orig_name"] for one in files.gallery(events[-1])] == [
        f"{JOB.seed}.png",
        f"{JOB.seed + 1}.png",
    ]
    assert list(tmp_path.iterdir()) == [path] and path.stat().st_size == size


def test_a_picture_of_an_attempt_that_was_cut_off_is_served_beside_those_of_the_next(
    files: PictureFiles, http: TestClient, tmp_path: Path
) -> None:
    first, second = life(picture=40), life(picture=50)
    log(tmp_path, first[:4])
    log(tmp_path, second, attempt=3)
    for event in (first[3], second[-1]):
        for one in files.gallery(event):
            assert http.get(files.path(one["image"])).status_code == 200


def test_whoever_is_shown_a_picture_can_fetch_it_at_once(tiny_queue: Queue) -> None:
    files = PictureFiles(tiny_queue.folder.logs)
    http = TestClient(Starlette(routes=[files.route()]))
    seen = 0
    for event in begin(tiny_queue, TINY | {"images": 2}).events():
        for one in files.gallery(event):
            seen += 1
            assert http.get(files.path(one["image"])).status_code == 200
    assert seen >= 2  # the finished ones, and the previews that this reader came to see


def test_a_finished_picture_is_served_in_the_format_that_its_address_names(
    files: PictureFiles, http: TestClient, tmp_path: Path
) -> None:
    picture = png("red")
    log(tmp_path, [Event(JOB, "finished", images=(picture,))])
    for kind, quality in (("png", None), ("jpeg", 85), ("webp", None), ("jpg", 100), ("webp", 0)):
        answer = http.get(files.path(files.file(JOB, picture, f"7.{kind}", quality)))
        with Image.open(io.BytesIO(answer.content)) as image:
            assert image.format == kind.replace("jpg", "jpeg").upper()
            assert image.size == (64, 64)


def test_an_address_cant_be_made_up(files: PictureFiles, http: TestClient, tmp_path: Path) -> None:
    picture = png("red")
    path = log(tmp_path, [Event(JOB, "finished", images=(picture,))])
    right = files.path(files.file(JOB, picture, "7.png"))
    assert http.get(right).status_code == 200
    assert JOB.id not in right
    folder, job, name = re.match(r"(.*/)([0-9a-f]{32})/([0-9a-f]{32})/7", right).groups()  # type: ignore[union-attr]
    other = "0" * 32
    for address in (
        f"{folder}{other}/{name}/7.png",
        f"{folder}{job}/{other}/7.png",
        f"{folder}{job}/{name[:8]}{other[8:]}/7.png",  # the checksum alone
        f"{folder}{job}/*/7.png",
        f"{folder}../{tmp_path.name}/{path.name}",
        f"{folder}{job}/{name}/../7.png",
        f"{folder}{job}/{name}/7.html",
        f"{folder}{job}/{name}-101/7.jpeg",
        f"{right}%0a",
        f"{right[: right.index('=') + 1]}{path}",
        f"{right[: right.index('=') + 1]}/etc/passwd%0a",
    ):
        answer = http.get(address)
        assert answer.status_code == 404, address
        assert "no such picture" in answer.json()["detail"]


def test_a_picture_whose_job_was_deleted_is_gone_and_words_say_so(
    files: PictureFiles, http: TestClient, tmp_path: Path
) -> None:
    path = log(tmp_path, life())
    address = files.path(files.gallery(life()[-1])[0]["image"])
    assert http.get(address).status_code == 200
    path.unlink()
    answer = http.get(address)
    assert (answer.status_code, "deleted" in answer.json()["detail"]) == (404, True)


def test_a_disk_that_cant_be_read_is_told_in_words(
    files: PictureFiles, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("jobs.store.event_log.open_file", fails)
    answer = http.get(files.path(files.gallery(life()[-1])[0]["image"]))
    assert answer.status_code == 503
    assert "can't be read" in answer.json()["detail"]
