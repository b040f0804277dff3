"""A mistake in models.yaml stops the start with its file, line, key and remedy, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import pytest

import app
from api.server.shutdown import Shutdown
from pipeline.catalog.catalogue import read_catalogue
from pipeline.catalog.spec import Provider
from pipeline.errors import CatalogueError

GOOD = """\
- id: tiny
  name: Tiny
  family: sd3
  source: model
  license: {name: MIT, url: "https://opensource.org/license/mit"}
  device: cpu
  defaults:
    steps: 4
    guidance: 3
    width: 64
    height: 64
  limits:
    steps: [1, 60]
    guidance: [0, 10]
    pixels: [1024, 65536]
    side: [32, 256]
    images: [1, 4]
    tokens: [1, 512]
    multiple: 16
    total_pixels: 65536
"""
SECOND = GOOD.replace("id: tiny", "id: second")


def written(folder: Path, text: str) -> Path:
    (folder / "model").mkdir(exist_ok=True)
    path = folder / "models.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_is_read_in_its_order(tmp_path: Path) -> None:
    specs = list(read_catalogue(written(tmp_path, GOOD + SECOND)))
    assert [spec.id for spec in specs] == ["tiny", "second"]
    assert specs[0].source == str(tmp_path / "model")
    assert specs[0].limits.side == (32, 256)


MISTAKES = {
    "unknown key": ("  name: Tiny\n", "  name: Tiny\n  nmae: x\n", "nmae: x", "nmae", "mend its spelling"),
    "unknown key inside": ("    steps: 4", "    stepz: 4", "stepz: 4", "defaults.stepz", "mend its spelling"),
    "wrong type": ("    steps: 4", "    steps: many", "steps: many", "defaults.steps", "many"),
    "a number for a name": ("id: tiny", "id: 5", "id: 5", "id", "5"),
    "capitals in an id": ("id: tiny", "id: Tiny One", "id: Tiny One", "id", "Tiny One"),
    "missing key": ("  source: model\n", "", "- id:", "source", "add this key"),
    "missing key inside": ("    multiple: 16\n", "", "limits:", "limits.multiple", "add this key"),
    "a list that is too short": ("[32, 256]", "[32]", "side: [32]", "limits.side", ""),
    "limits reversed": ("[1, 60]", "[60, 1]", "steps: [60, 1]", "limits.steps", "smaller first"),
    "default outside limits": ("    steps: 4", "    steps: 99", "steps: 99", "defaults.steps", "[1, 60]"),
    "default too wide": ("    width: 64", "    width: 512", "width: 512", "defaults.width", "[32, 256]"),
    "default off the multiple": ("    width: 64", "    width: 65", "width: 65", "defaults.width", "16"),
    "default area too large": ("[1024, 65536]", "[1024, 2048]", "width: 64", "defaults.width", "2048"),
    "total below one picture": (
        "pixels: 65536",
        "pixels: 4095",
        "pixels: 4095",
        "limits.total_pixels",
        "4096",
    ),
    "an infinite limit": ("[0, 10]", "[0, .inf]", "[0, .inf]", "limits.guidance", "finite"),
    "negative steps": ("[1, 60]", "[-1, 60]", "[-1, 60]", "limits.steps", "-1"),
    "unknown family": ("family: sd3", "family: sd9", "family: sd9", "family", "'sd3'"),
    "no such folder": ("source: model", "source: ./modle", "source: ./modle", "source", "mend the path"),
    "neither folder nor Hub id": ("source: model", "source: modle", "source: modle", "source", "owner/name"),
    "text for a list": ("    steps: [1, 60]", "    steps: 1-60", "steps: 1-60", "limits.steps", "1-60"),
    "unknown preview": ("  device: cpu", "  preview: xyz", "preview: xyz", "preview", ""),
    "unknown device": ("  device: cpu", "  device: tpu", "device: tpu", "device", "tpu"),
}


@pytest.mark.parametrize("old, new, at, key, remedy", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_its_line_its_key_and_the_remedy(
    tmp_path: Path, old: str, new: str, at: str, key: str, remedy: str
) -> None:
    assert old in GOOD
    complain(tmp_path, SECOND, GOOD.replace(old, new, 1), at, key, remedy)


def complain(folder: Path, before: str, entry: str, at: str, key: str, remedy: str) -> None:
    """Checks that this entry, behind another, is refused for the line that has `at` in it."""
    path = written(folder, before + entry)
    line = before.count("\n") + next(n for n, words in enumerate(entry.splitlines(), 1) if at in words)
    with pytest.raises(CatalogueError) as mistake:
        read_catalogue(path)
    words = str(mistake.value)
    assert words.startswith(f"{path}, line {line}: {key}: "), words
    assert remedy in words
    assert "ordereddict" not in words
    assert "Value error" not in words


FAR = """\
- id: far
  name: Far
  family: sd3
  backend: inference
  source: someone/far
  license: {name: MIT, url: "https://opensource.org/license/mit"}
"""
FAR += GOOD[GOOD.index("  defaults:") :]


def test_an_entry_for_inference_providers_is_read(tmp_path: Path) -> None:
    (tmp_path / "someone" / "far").mkdir(parents=True)  # which a source on this machine would mean
    (spec,) = read_catalogue(written(tmp_path, FAR.replace("  source", "  timeout: 60\n  source")))
    assert (spec.backend, spec.provider, spec.timeout) == ("inference", "auto", 60)
    assert (spec.source, spec.local) == ("someone/far", False)


INFERENCE_MISTAKES = {
    "unknown backend": ("inference", "cloud", "backend: cloud", "backend", "'inference'"),
    "unknown provider": (
        "  source",
        "  provider: me\n  source",
        "provider: me",
        "provider",
        "'hf-inference'",
    ),
    "no time": ("  source", "  timeout: 0\n  source", "timeout: 0", "timeout", "greater than 0"),
    "endless time": ("  source", "  timeout: .inf\n  source", "timeout: .inf", "timeout", ""),
    "a folder": ("someone/far", "./far", "source: ./far", "source", "owner/name"),
    "an address": ("someone/far", "https://x.org/far", "source: http", "source", "owner/name"),
    "a device": ("  source", "  device: cpu\n  source", "device: cpu", "device", "remove it"),
    "a preview": ("  source", "  preview: sd3\n  source", "preview: sd3", "preview", "remove it"),
    "a base": ("  source", "  base: a/b\n  source", "base: a/b", "base", "remove it"),
    "a revision": ("  source", "  revision: main\n  source", "revision: main", "revision", "remove it"),
    "needs": ("  source", "  needs: {disk: 3}\n  source", "needs:", "needs", "remove it"),
    "layers to skip": (
        "  source",
        "  skip_layer_guidance: {layers: [1], scale: 1, start: 0, stop: 1}\n  source",
        "skip_layer_guidance:",
        "skip_layer_guidance",
        "remove it",
    ),
    "a provider without the backend": (
        "  backend: inference\n",
        "  provider: auto\n",
        "provider: auto",
        "provider",
        "`backend: inference`",
    ),
}


@pytest.mark.parametrize("old, new, at, key, remedy", INFERENCE_MISTAKES.values(), ids=INFERENCE_MISTAKES)
def test_a_mistake_in_an_entry_for_inference_providers_names_its_line_its_key_and_the_remedy(
    tmp_path: Path, old: str, new: str, at: str, key: str, remedy: str
) -> None:
    assert old in FAR
    complain(tmp_path, GOOD, FAR.replace(old, new, 1), at, key, remedy)


def test_the_providers_of_the_catalogue_are_those_that_the_library_has_pictures_from() -> None:
    from huggingface_hub.inference._providers import PROVIDERS  # private, and asked by this test alone

    drawing = {name for name, tasks in PROVIDERS.items() if "text-to-image" in tasks}
    assert set(get_args(Provider)) == {"auto"} | drawing


@pytest.mark.parametrize(
    "text, line, words",
    [
        (GOOD.replace("family: sd3", "family: [sd3"), 4, "not valid YAML"),
        (GOOD.replace("    steps: 4", "\tsteps: 4"), 8, "not valid YAML"),
        (GOOD.replace("  name: Tiny\n", "  name: Tiny\n  name: Tony\n"), 3, "duplicate key"),
        (GOOD.replace("sd3", "*stability"), 3, "not valid YAML"),
        (GOOD + GOOD, 21, "id tiny is used twice"),
        ("", 1, "expected a list of models"),
        ("id: tiny\n", 1, "expected a list of models"),
        ("[]\n", 1, "expected a list of models"),
        (GOOD + "- sketch\n", 21, "`id: …`"),
        ("- id: tiny\n  name: \x07\n", 2, "not valid YAML"),
    ],
    ids=[
        "bracket",
        "tab",
        "key twice",
        "alias",
        "id twice",
        "empty",
        "mapping",
        "no models",
        "word",
        "control",
    ],
)
def test_a_file_that_is_not_a_list_of_models_says_where(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(CatalogueError) as mistake:
        read_catalogue(path)
    assert str(mistake.value).startswith(f"{path}, line {line}: "), mistake.value
    assert words in str(mistake.value)


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="doesn't exist: set STEPWISE_MODELS"):
        read_catalogue(tmp_path / "nothing.yaml")


def test_a_folder_instead_of_a_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match=r"can't be read.*STEPWISE_MODELS"):
        read_catalogue(tmp_path)


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CatalogueError, match="UTF-8"):
        read_catalogue(path)


def test_the_repositorys_own_models_are_these(engine) -> None:
    specs = {spec.id: spec for spec in engine.catalogue}
    assert list(specs) == ["sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "z-image-turbo", "sketch"]
    turbo = specs["sd3.5-large-turbo"]
    assert (turbo.defaults.steps, turbo.defaults.guidance) == (4, 0)
    assert [name for name, spec in specs.items() if spec.skip_layer_guidance] == ["sd3.5-medium"]
    assert [name for name, spec in specs.items() if spec.license.gated] == list(specs)[:3]


@pytest.fixture
def started_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """app.py can be started in this process: with a folder of its own, and without its handlers of signals,
    which would end the tests."""
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setenv("STEPWISE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))  # else the start sets it, and it stays
    monkeypatch.setattr(Shutdown, "listen", lambda _: None)


@pytest.mark.usefixtures("started_here")
def test_the_app_does_not_start_on_a_mistake_and_prints_just_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, GOOD.replace("family: sd3", "family: sd9"))
    monkeypatch.setenv("STEPWISE_MODELS", str(path))
    with pytest.raises(SystemExit) as ended:
        app.main()
    # Python prints words that a program ends with to stderr, and its status is then 1.
    assert isinstance(ended.value.code, str)
    (words,) = ended.value.code.splitlines()
    assert words.startswith(f"{path}, line 3: family: ")
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.usefixtures("started_here")
def test_the_app_does_not_start_on_a_bad_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWISE_MAX_WAITING", "many")
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert "max_waiting" in str(ended.value).lower()
    assert "many" in str(ended.value)
