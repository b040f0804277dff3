"""What bench.crossings finds of a preview's path: in what a process sees, and in what was recorded."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from bench.support.inside.sitecustomize import JPEG, jpegs
from bench.support.trace import Records, Step, Thread, general

SMALL, LARGE = JPEG + b"small", JPEG + bytes(9000)
DRAWS, PREVIEWS, LOOP = Thread(1, 10), Thread(1, 11), Thread(1, 12)
READS, ANSWERS = Thread(2, 20), Thread(2, 21)


@dataclass(frozen=True)
class Message:
    previews: tuple[bytes, ...]


@dataclass
class Shared:
    latest: Message


def recorded(folder: Path, *lines: tuple[Thread, Any]) -> Records:
    for thread, (kind, at, *more) in lines:
        with (folder / f"{thread.process}.jsonl").open("a", encoding="utf-8") as file:
            print(json.dumps([kind, at, thread.number, f"thread {thread.number}", *more]), file=file)
    return Records.read(folder)


@pytest.mark.parametrize("value", [[SMALL], {"a": (1, SMALL)}, Message((SMALL,)), bytearray(SMALL)])
def test_a_preview_is_seen_in_containers_and_in_immutable_objects(value):
    assert list(jpegs(value)) == [crc32(SMALL)]


def test_a_preview_is_not_seen_in_an_object_that_threads_share():
    assert not list(jpegs([Shared(Message((SMALL,)))]))


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_previews_are_seen_in_a_pickled_message(protocol):
    data = pickle.dumps(Message((SMALL, LARGE)), protocol)
    assert set(jpegs(data)) == {crc32(SMALL), crc32(LARGE)}


def test_a_path_goes_from_who_woke_to_whom_and_leaves_out_who_only_looked(tmp_path):
    records = recorded(
        tmp_path,
        (DRAWS, ("step", 1.0)),
        (PREVIEWS, ("woken", 1.2, 1.1, DRAWS.number)),
        (PREVIEWS, ("seen", 1.3, 7)),
        (READS, ("seen", 1.35, 8)),
        (Thread(1, 99), ("seen", 1.4, 7)),
        (LOOP, ("woken", 1.6, 1.5, PREVIEWS.number)),
        (LOOP, ("seen", 1.7, 7)),
        (LOOP, ("answer", 1.8, "/preview.jpg")),
    )
    question = Step(1.0, DRAWS), 7, records.answers["/preview.jpg"]
    path = records.path(*question)
    assert [hop.thread for hop in path] == [DRAWS, PREVIEWS, LOOP] and all(hop.known for hop in path)
    assert records.holders(*question) == 4


def test_a_path_crosses_a_pipe_from_who_sent_to_who_received(tmp_path):
    records = recorded(
        tmp_path,
        (DRAWS, ("step", 1.0)),
        (DRAWS, ("seen", 1.1, 7)),
        (DRAWS, ("sent", 1.2, 7)),
        (READS, ("received", 1.3, 7)),
        (ANSWERS, ("woken", 1.5, 1.4, READS.number)),
        (ANSWERS, ("seen", 1.6, 7)),
        (ANSWERS, ("answer", 1.7, "/preview.jpg")),
    )
    path = records.path(Step(1.0, DRAWS), 7, records.answers["/preview.jpg"])
    assert [(hop.thread, hop.known) for hop in path] == [(DRAWS, True), (READS, True), (ANSWERS, True)]


def test_a_hand_over_that_nobody_saw_is_said_to_be_unknown(tmp_path):
    records = recorded(
        tmp_path, (DRAWS, ("step", 1.0)), (LOOP, ("seen", 1.2, 7)), (LOOP, ("answer", 1.3, "/preview.jpg"))
    )
    path = records.path(Step(1.0, DRAWS), 7, records.answers["/preview.jpg"])
    assert [(hop.thread, hop.known) for hop in path] == [(DRAWS, True), (LOOP, False)]


def test_a_threads_name_is_told_without_the_jobs(tmp_path):
    assert general("drawing 1f2a3b4c") == "drawing …" and general("queue cpu") == "queue cpu"
    assert general("Thread-5 (run)") == "Thread-… (run)" and general("dead") == "dead"
