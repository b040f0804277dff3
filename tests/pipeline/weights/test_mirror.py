"""Where something else answers in the Hub's place, such as a network's page for logging in or a mirror that
isn't whole, or nothing does, the address is named with what to do; and the next try works once the Hub is
there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import Engine
from pipeline.events import Event
from pipeline.library_errors import hub_address
from tests.support.services.hub import COMMIT, FakeHub, Repository, serve_hub, use_hub
from tests.support.tiny import catalogue, entry

MODEL = "me/tiny"
PAGE = b"<!doctype html><title>Welcome to the hotel</title>" * 30
BROWSER = ["isn't the Hub", "in a browser on this machine", "if HF_ENDPOINT is set, check it"]


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve_hub() as hub:
        hub.repositories[MODEL] = Repository(tiny_folder)
        use_hub(monkeypatch, hub, tmp_path / "hub", None)
        monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub sleeps between its tries
        yield hub


def drawn(tmp_path: Path, **changes: Any) -> Event:
    engine = Engine(catalogue(tmp_path, entry(Path(MODEL), **changes)))
    return engine.start(engine.check({"prompt": "a fox", "model": "tiny", "steps": 2})).result()


OTHERWISE = {
    "a page for logging in": ({"portal": (200, "text/html", PAGE)}, BROWSER),
    "JSON of another kind": ({"portal": (200, "application/json", b'{"login": "/"}')}, BROWSER),
    "a list": ({"portal": (200, "application/json", b'["login"]')}, BROWSER),
    "an empty object": ({"portal": (200, "application/json", b"{}")}, ["check `source`", "HF_ENDPOINT"]),
    "nothing": ({"portal": (200, "text/plain", b"")}, BROWSER),
    "not found": ({"portal": (404, "text/html", PAGE)}, [*BROWSER, "404"]),
    "forbidden": ({"portal": (403, "text/html", PAGE)}, [*BROWSER, "403"]),
    "a login is needed for the network": ({"portal": (511, "text/html", PAGE)}, ["511"]),
    "files without the Hub's headers": ({"bare": True}, [*BROWSER, "ETag"]),
    "a page instead of each file": ({"page": PAGE}, [*BROWSER, "another size"]),
}


@pytest.mark.parametrize("revision", [None, COMMIT], ids=["newest", "pinned"])
@pytest.mark.parametrize("fault, words", OTHERWISE.values(), ids=OTHERWISE)
def test_what_answers_otherwise_than_the_hub_is_named_with_its_address_and_mended_by_the_next_try(
    hub: FakeHub, tmp_path: Path, fault: dict[str, Any], words: list[str], revision: str | None
) -> None:
    if revision is None and "check `source`" in words:
        words = BROWSER  # it is asked for the newest commit first, and has none
    before = {name: getattr(hub, name) for name in fault}
    for name, value in fault.items():
        setattr(hub, name, value)
    changes = {} if revision is None else {"revision": revision}
    last = drawn(tmp_path, **changes)
    assert (last.phase, last.code) == ("failed", "weights_error")
    for word in ("Tiny", hub.url, *words):
        assert word in str(last.error), last.error
    assert "other settings" not in str(last.error)
    for name, value in before.items():
        setattr(hub, name, value)
    again = drawn(tmp_path, **changes)
    assert (again.phase, again.error) == ("finished", None)


@pytest.mark.parametrize(
    "address, words",
    [
        ("http://127.0.0.1:9", ["the Hub can't be reached", "check the network"]),
        ("http://no-such-host.invalid", ["the Hub can't be reached", "check the network"]),
        ("mirror.example", ["is no address", "set HF_ENDPOINT to one that begins with https://"]),
        ("ftp://mirror.example", ["is no address"]),
    ],
)
def test_an_address_that_nobody_answers_at_is_named(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, words: list[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    last = drawn(tmp_path)
    for word in (address, *words):
        assert word in str(last.error), last.error


def test_a_fault_of_a_mirror_is_said_with_its_address(hub: FakeHub, tmp_path: Path) -> None:
    hub.refuse = 503
    assert f"HF_ENDPOINT is {hub.url}" in str(drawn(tmp_path).error)


def test_a_repository_without_a_pipeline_says_so(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "lora.safetensors").write_bytes(b"x")
    hub.repositories[MODEL] = Repository(tmp_path / "lora")
    assert "lists no files of a diffusers pipeline in me/tiny" in str(drawn(tmp_path).error)


def test_the_address_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://ann:secret@mirror.example/hf")
    assert hub_address() == "https://mirror.example/hf"
