"""Weights from the Hub: fetched with progress, stopped at any moment, and every failure in words that name
the model, the cause and the remedy; nothing half-loaded stays, and the next try works once the cause is gone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import SD3Transformer2DModel

from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.weights.download import _Download
from tests.support.services.hub import FakeHub, Repository, serve_hub, use_hub
from tests.support.tiny import catalogue, entry, hold, tiny_z_image

MODEL = "me/tiny"
LICENSE = f"https://huggingface.co/{MODEL}"
REQUEST = {"prompt": "a fox", "model": "tiny", "steps": 2}


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub with one gated model; this process has a token whose account accepted its licence."""
    with serve_hub() as hub:
        hub.repositories[MODEL] = Repository(tiny_folder, accepted=frozenset({"hf_good"}))
        use_hub(monkeypatch, hub, tmp_path / "hub", "hf_good")
        yield hub


@pytest.fixture
def tiny(hub: FakeHub, tmp_path: Path) -> Engine:
    license = {"name": "Some", "url": LICENSE, "gated": True}
    return Engine(catalogue(tmp_path, entry(Path(MODEL), license=license)))


def drawn(engine: Engine) -> Event:
    return engine.start(engine.check(REQUEST)).result()


def works_again(engine: Engine) -> None:
    last = drawn(engine)
    assert (last.phase, last.error) == ("finished", None)


def test_a_first_drawing_downloads_with_progress_and_then_draws(
    tiny: Engine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.slow, hub.held = threading.Event(), "transformer/diffusion"
    listed = hold(monkeypatch, _Download, "_list")
    folder = hub.repositories[MODEL].folder
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    held = (folder / "transformer" / "diffusion_pytorch_model.safetensors").stat().st_size
    # What is in two files is fetched once.
    others, whole = sum(map(len, set(files))) - held, sum(map(len, files))
    drawing = tiny.start(tiny.check(REQUEST))
    seen = []
    for event in drawing.events():
        if event.phase == "downloading":
            seen.append((event.done, event.total))
            listed.open()
            if event.done >= others:
                hub.slow.set()
    assert seen[0] == (0, 0), "how much it is, nobody has said yet"
    assert (others, whole) in seen
    assert seen == sorted(seen)
    assert drawing.latest.phase == "finished"
    fetched = len(hub.files)
    works_again(Engine(tiny.catalogue))  # another process would find them in the cache
    assert len(hub.files) == fetched


def test_a_stop_while_downloading_waits_for_no_byte(tiny: Engine, hub: FakeHub) -> None:
    hub.slow = threading.Event()  # shut until the test ends: the Hub sends nothing
    drawing = tiny.start(tiny.check(REQUEST))
    for event in drawing.events():
        if event.phase == "downloading" and hub.files:
            drawing.stop()
    assert drawing.latest.phase == "stopped"
    hub.slow.set()
    hub.slow = None
    works_again(tiny)


@pytest.mark.parametrize(
    "token, words",
    [
        (None, ["Tiny is gated", LICENSE, "HF_TOKEN"]),
        ("hf_other", ["the account of HF_TOKEN", LICENSE]),
        ("hf_bad", ["doesn't accept HF_TOKEN", "https://huggingface.co/settings/tokens"]),
    ],
    ids=["no token", "licence not accepted", "not a token"],
)
def test_a_gated_model_says_which_step_is_missing(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, words: list[str]
) -> None:
    hub.tokens |= {"hf_other"}
    use_hub(monkeypatch, hub, tmp_path / "hub", token)
    engine = Engine(catalogue(tmp_path, entry(Path(MODEL), license={"name": "Some", "url": LICENSE})))
    last = drawn(engine)
    assert last.phase == "failed"
    assert all(part in str(last.error) for part in words), last.error
    use_hub(monkeypatch, hub, tmp_path / "hub", "hf_good")
    works_again(engine)


@pytest.mark.parametrize(
    "fault, words",
    [
        ({"refuse": 429}, ["Tiny", "429", "Wait some minutes"]),
        ({"refuse": 503}, ["Tiny", "503", "Try again later"]),
        ({"cut": 20_000}, ["Tiny", "broke off", "try again"]),
        ({"short": True}, ["Tiny", "damaged", "deleted", "Try again"]),
        ({"flip": True}, ["Tiny", "SHA-256", "deleted", "Try again"]),
        ({"repositories": {}}, ["Tiny", "no repository", "`source`"]),
    ],
    ids=["429", "503", "cut halfway", "a truncated file", "a flipped bit", "a wrong id"],
)
def test_a_fault_of_the_hub_is_said_in_words_and_mended_by_the_next_try(
    tiny: Engine,
    hub: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    words: list[str],
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub sleeps between its tries
    before = {name: getattr(hub, name) for name in fault}
    for name, value in fault.items():
        setattr(hub, name, value)
    last = drawn(tiny)
    assert last.phase == "failed"
    assert all(part in str(last.error) for part in words), last.error
    for name, value in before.items():
        setattr(hub, name, value)
    works_again(tiny)


def test_a_hub_out_of_reach_is_said_and_a_model_that_is_here_draws_without_it(
    tiny: Engine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    last = drawn(tiny)
    assert "the Hub can't be reached: check the network" in str(last.error)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    works_again(tiny)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    works_again(Engine(tiny.catalogue))


def test_a_download_that_was_cut_goes_on_where_it_was(
    tiny: Engine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut = 20_000

    def mended(seconds: float) -> None:
        if seconds >= 1:  # huggingface_hub waits a second after a cut, and less for a lock
            hub.cut = None

    monkeypatch.setattr("time.sleep", mended)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)  # it keeps whole pieces
    works_again(tiny)
    assert any(asked for _, asked in hub.files), "no file was asked for from where it was cut"


def test_files_that_are_complete_are_not_fetched_again(
    tiny: Engine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cut = 20_000  # only the small ones arrive whole
    assert drawn(tiny).phase == "failed"
    first = {file for file, _ in hub.files if "safetensors" not in file and "tokenizer.json" not in file}
    hub.cut, hub.files[:] = None, []
    works_again(tiny)
    assert first
    assert not first & {file for file, _ in hub.files}


def test_a_disk_without_room_is_said_before_a_byte_is_fetched(
    tiny: Engine, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("pipeline.weights.download.shutil.disk_usage", lambda _: Usage)
    last = drawn(tiny)
    assert "GB more disk" in str(last.error)
    assert "HF_HOME" in str(last.error)
    assert not hub.files


def test_a_disk_that_becomes_full_is_said(tiny: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        last = drawn(tiny)
    assert "The disk became full while Tiny was fetched" in str(last.error)
    works_again(tiny)


def test_a_file_that_is_damaged_on_the_disk_is_fetched_anew(
    tiny: Engine, hub: FakeHub, tmp_path: Path
) -> None:
    works_again(tiny)
    (weights,) = (tmp_path / "hub").rglob("snapshots/*/vae/*.safetensors")
    blob = weights.resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-100])
    engine = Engine(tiny.catalogue)
    last = drawn(engine)
    assert "vae/diffusion_pytorch_model.safetensors got damaged on this machine's disk" in str(last.error)
    hub.files.clear()
    works_again(engine)
    assert {file for file, _ in hub.files} == {"vae/diffusion_pytorch_model.safetensors"}


def test_the_token_reaches_the_hub_and_nobody_else(
    tiny: Engine, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events = list(tiny.start(tiny.check(REQUEST)).events())
    hub.refuse = 503
    hub.repositories["me/other"] = hub.repositories[MODEL]
    events += [drawn(Engine(tiny.catalogue))]
    assert "hf_good" in hub.authorization
    assert "hf_good" not in caplog.text
    assert "hf_good" not in repr(events) + repr([event.info() for event in events]) + repr(tiny.models())


def test_who_asks_for_a_model_that_is_being_fetched_waits_for_the_same_download(
    tiny: Engine, hub: FakeHub, tmp_path: Path
) -> None:
    """Two engines as two devices of one: each draws by itself."""
    hub.slow, hub.held = threading.Event(), "transformer/diffusion"
    other = Engine(tiny.catalogue)
    drawings = [engine.start(engine.check(REQUEST)) for engine in (tiny, other)]
    for drawing in drawings:
        for event in drawing.events():
            if event.phase == "downloading" and event.total and event.done:
                break
    assert drawings[0].latest.total == drawings[1].latest.total
    drawings[0].stop()
    assert drawings[0].result().phase == "stopped"
    hub.slow.set()
    assert drawings[1].result().phase == "finished"
    fetched = [file for file, _ in hub.files]
    assert len(fetched) == len(set(fetched))


def test_a_pinned_revision_is_the_one_that_is_fetched_and_an_unknown_one_is_said(
    hub: FakeHub, tmp_path: Path
) -> None:
    commit = "0123456789" * 4
    hub.repositories[MODEL].commit = commit

    def pinned(revision: str) -> Engine:
        return Engine(catalogue(tmp_path, entry(Path(MODEL), revision=revision, needs={"disk": 1e9})))

    engine = pinned(commit)
    (need,) = [need for need in engine.requirements(engine.catalogue["tiny"]) if need.what == "disk"]
    assert not need.met
    engine = Engine(catalogue(tmp_path, entry(Path(MODEL), revision=commit)))
    works_again(engine)
    assert (tmp_path / "hub" / "models--me--tiny" / "snapshots" / commit / "model_index.json").exists()
    engine = pinned(commit)
    (need,) = [need for need in engine.requirements(engine.catalogue["tiny"]) if need.what == "disk"]
    assert need.met, "it is here: no more room is needed"
    other = Engine(catalogue(tmp_path, entry(Path(MODEL), revision="f" * 40)))
    assert "no such revision of Tiny: check `revision` in models.yaml" in str(drawn(other).error)


def test_a_language_models_chat_template_is_fetched_too(hub: FakeHub, tmp_path: Path) -> None:
    """transformers (5) keeps it in a file of its own."""
    hub.repositories["me/z"] = Repository(tiny_z_image(tmp_path / "z"))
    assert (tmp_path / "z" / "tokenizer" / "chat_template.jinja").exists()
    works_again(Engine(catalogue(tmp_path, entry(Path("me/z"), family="z-image", preview="flux"))))


def test_a_first_drawings_download_keeps_nobody_else_from_drawing(
    hub: FakeHub, tiny_folder: Path, tmp_path: Path
) -> None:
    engine = Engine(catalogue(tmp_path, entry(Path(MODEL)), entry(tiny_folder, "other")))
    hub.slow = threading.Event()
    waiting = engine.start(engine.check(REQUEST))
    next(event for event in waiting.events() if event.phase == "downloading" and event.total)
    others = [engine.start(engine.check(REQUEST | {"model": "other"})) for _ in range(2)]
    assert [other.result().phase for other in others] == ["finished", "finished"]
    assert waiting.latest.phase == "downloading"
    hub.slow.set()
    assert waiting.result().phase == "finished"


def test_whoever_waits_for_its_turn_after_a_download_is_told_so(
    hub: FakeHub, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(catalogue(tmp_path, entry(Path(MODEL)), entry(tiny_folder, "other")))
    hub.slow = threading.Event()
    waiting = engine.start(engine.check(REQUEST))
    next(event for event in waiting.events() if event.phase == "downloading")
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward")
    other = engine.start(engine.check(REQUEST | {"model": "other"}))
    gate.wait()
    hub.slow.set()
    assert next(event for event in waiting.events() if event.phase != "downloading").phase == "queued"
    gate.open()
    assert [other.result().phase, waiting.result().phase] == ["finished", "finished"]


def test_a_stop_during_a_download_leaves_the_device_as_it_was(hub: FakeHub, tmp_path: Path) -> None:
    engine = Engine(catalogue(tmp_path, entry(Path(MODEL))))
    hub.slow = threading.Event()
    stopped = engine.start(engine.check(REQUEST))
    next(event for event in stopped.events() if event.phase == "downloading")
    stopped.stop()
    assert stopped.result().phase == "stopped"
    hub.slow.set()
    works_again(engine)


def test_a_cache_that_cant_be_written_to_is_told_with_the_setting_that_moves_it(
    tiny: Engine, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    use_hub(monkeypatch, hub, tmp_path / "file" / "hub", "hf_good")
    last = drawn(tiny)
    assert last.error is not None
    assert "HF_HOME" in last.error and "can't be written to (Not a directory)" in last.error
    assert str(tmp_path) not in last.error  # where things lie on the server is for its log
