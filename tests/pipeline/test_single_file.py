"""A model whose transformer is one safetensors file, as fine-tunes are shared, over another's other parts."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from pipeline.catalogue import read_catalogue
from pipeline.engine import Engine
from pipeline.errors import CatalogueError
from tests.conftest import ROOT

SKETCH = ROOT / "weights" / "sketch"


def write_catalogue(folder: Path, **changes: str) -> Path:
    """A models.yaml with sketch, and beside it sketch again with these keys changed."""
    entries = YAML(typ="safe").load(ROOT / "models.yaml")
    sketch = next(entry for entry in entries if entry["id"] == "sketch") | {"source": str(SKETCH)}
    path = folder / "models.yaml"
    YAML(typ="safe").dump([sketch, sketch | {"id": "single"} | changes], path)
    return path


def test_a_single_file_draws_the_same_picture_as_the_folder_it_was_made_from(tmp_path: Path) -> None:
    tensors = {}
    for shard in (SKETCH / "transformer").glob("*.safetensors"):
        tensors |= load_file(shard)
    save_file(tensors, tmp_path / "fine-tune.safetensors")
    engine = Engine(
        read_catalogue(write_catalogue(tmp_path, source="fine-tune.safetensors", base=str(SKETCH)))
    )
    pictures = []
    for model in ("sketch", "single"):
        job = engine.resolve({"prompt": "a fox", "model": model, "seed": 1, "steps": 3})
        event = engine.start(job).result()
        assert event.phase == "finished", event.error
        with Image.open(io.BytesIO(event.images[0])) as image:
            pictures.append(image.tobytes())
    assert pictures[0] == pictures[1]


def test_a_single_file_without_a_base_stops_the_start_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "fine-tune.safetensors").touch()
    with pytest.raises(CatalogueError, match=r"line \d+: base: goes with a source that is a single file"):
        read_catalogue(write_catalogue(tmp_path, source="fine-tune.safetensors"))
