"""One download for all who wait for it: a failure is theirs alone, and what has come is hashed once, by
whichever process is first."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.lifecycle.active_jobs import ActiveJobs
from pipeline.catalog.spec import ModelSpec
from pipeline.engine import Engine
from pipeline.errors import WeightsError
from pipeline.events import Phase
from pipeline.weights import verified_files
from pipeline.weights.download import discard_damaged, fetch
from pipeline.weights.verified_files import is_sound
from tests.support.queues import begin, queued
from tests.support.services.hub import LARGE, FakeHub, Repository, serve_hub, use_hub
from tests.support.tiny import ROOT, catalogue, entry, hold

MODEL = "me/tiny"
REQUEST = {"prompt": "a fox", "model": "tiny", "steps": 2}


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve_hub() as hub:
        hub.repositories[MODEL] = Repository(tiny_folder)
        use_hub(monkeypatch, hub, tmp_path / "hub", None)
        yield hub


@pytest.fixture
def spec(hub: FakeHub, tmp_path: Path) -> ModelSpec:
    return catalogue(tmp_path, entry(Path(MODEL)))["tiny"]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed."""
    names: list[str] = []
    real = verified_files._sha256

    def counting(path: Path, abandoned: threading.Event) -> str:
        names.append(path.name)
        return real(path, abandoned)

    monkeypatch.setattr(verified_files, "_sha256", counting)
    return names


def quiet(phase: Phase, done: int, total: int) -> None:
    """Who waits, and wants to know nothing."""


# A failure.


class Held:
    """One who waits for a download, and doesn't look how it stands until it is let go."""

    def __init__(self, spec: ModelSpec) -> None:
        self.joined, self._go = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._fetch, args=(spec,))
        self._thread.start()

    def end(self) -> None:
        self._go.set()
        self._thread.join(60)

    def _fetch(self, spec: ModelSpec) -> None:
        try:
            fetch(spec, self._report)
        except WeightsError as error:
            self.error = error

    def _report(self, phase: Phase, done: int, total: int) -> None:
        self.joined.set()
        assert self._go.wait(60)


def test_a_failure_is_of_those_who_waited_and_the_next_try_begins_anew(hub: FakeHub, spec: ModelSpec) -> None:
    hub.slow, hub.short = threading.Event(), True
    others = [Held(spec), Held(spec)]  # they have still to see how it ended when the next try comes
    for other in others:
        assert other.joined.wait(60)

    def go(phase: Phase, done: int, total: int) -> None:
        hub.slow.set() if hub.slow else None

    with pytest.raises(WeightsError, match="arrived damaged"):
        fetch(spec, go)
    hub.short = False
    assert (fetch(spec, quiet) / "model_index.json").exists()
    for other in others:
        other.end()
        assert "arrived damaged" in str(other.error)


def test_a_job_that_comes_while_a_failure_is_being_told_is_fetched_for_anew(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling = hold(monkeypatch, ActiveJobs, "refuse_all")
    with queued(Engine(catalogue(tmp_path, entry(Path(MODEL)))), tmp_path) as queue:
        hub.short = True
        first = begin(queue, REQUEST)
        telling.wait()
        hub.short = False
        second = begin(queue, REQUEST)
        telling.open()
        assert "arrived damaged" in str(first.result().error)
        last = second.result()
        assert (last.phase, last.error) == ("finished", None)


# Hashing.


def large(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= LARGE]


def test_what_was_hashed_once_is_not_hashed_again_until_it_changes(
    hub: FakeHub, spec: ModelSpec, hashed: list[str]
) -> None:
    folder = fetch(spec, quiet)
    files = {path.resolve() for path in large(folder)}
    assert sorted(hashed) == sorted(file.name for file in files)
    hashed.clear()
    for path in files:
        assert is_sound(path, threading.Event())
    assert not hashed

    changed = next(path for path in files if path.stat().st_size > 10_000)
    content = changed.read_bytes()
    changed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not is_sound(changed, threading.Event())
    assert not is_sound(changed, threading.Event())
    changed.write_bytes(content)
    assert is_sound(changed, threading.Event())
    assert hashed == [changed.name] * 3
    assert is_sound(changed, threading.Event(), anew=True), "asked for, it is hashed whatever was noted"
    assert len(hashed) == 4


def test_a_disk_that_fails_without_telling_is_found_out_where_a_file_can_not_be_read(
    hub: FakeHub, spec: ModelSpec, hashed: list[str]
) -> None:
    folder = fetch(spec, quiet)
    hashed.clear()
    assert discard_damaged(folder) == ""
    assert set(hashed) == {path.resolve().name for path in large(folder)}


@pytest.mark.parametrize("note", [b"", b"[1, 2", b"[" * 100_000, b"\xff", b"{}"])
def test_a_damaged_note_is_no_note(hub: FakeHub, spec: ModelSpec, hashed: list[str], note: bytes) -> None:
    file = large(fetch(spec, quiet))[0].resolve()
    notes = list((file.parents[2] / ".locks" / "stepwise").glob(f"{file.name}.json"))
    assert notes
    notes[0].write_bytes(note)
    hashed.clear()
    assert is_sound(file, threading.Event())
    assert hashed == [file.name]


FETCH = """
import sys, threading
from pathlib import Path
from pipeline.weights import verified_files
from pipeline.catalog.catalogue import read_catalogue
from pipeline.weights.download import fetch
hashed, real = [], verified_files._sha256
verified_files._sha256 = lambda path, abandoned: (hashed.append(path.name), real(path, abandoned))[1]
fetch(read_catalogue(sys.argv[1])["tiny"], lambda phase, done, total: None)
print(*hashed, sep="\\n")
"""


def test_processes_that_fetch_together_hash_each_file_once_between_them(
    hub: FakeHub, spec: ModelSpec, tmp_path: Path
) -> None:
    """As workers do that make the same model ready at the start."""
    hub.slow = threading.Event()
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, str(tmp_path / "models.yaml")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    # All have listed what is missing before anything has come.
    listed = threading.Event()
    while sum("/tree/" in path for path in list(hub.asked)) < 2:
        assert not any(process.poll() for process in processes)
        listed.wait(0.05)
    hub.slow.set()
    outputs = [process.communicate(timeout=300)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    names = [name for output in outputs for name in output]
    (folder,) = (tmp_path / "hub").glob("models--*/snapshots/*")
    assert sorted(names) == sorted({path.resolve().name for path in large(folder)})
