"""A model whose transformer is one safetensors file, as fine-tunes are shared, over another's other parts."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save, save_file

from pipeline.catalog.catalogue import read_catalogue
from pipeline.engine import Engine
from pipeline.errors import CatalogueError, ModelUnavailable
from tests.conftest import ROOT
from tests.support.original import original
from tests.support.tiny import catalogue, draw, entry, pixels, tiny_z_image

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
    words = r"line \d+: base: goes with a source that is a single file, as fine-tune.safetensors is: add base"
    with pytest.raises(CatalogueError, match=words):
        read_catalogue(write_catalogue(tmp_path, source="fine-tune.safetensors"))


def test_a_base_without_a_single_file_and_one_that_is_a_file_are_said(tmp_path: Path) -> None:
    (tmp_path / "fine-tune.safetensors").touch()
    with pytest.raises(CatalogueError, match=r"line \d+: base: .* only with one: remove it"):
        read_catalogue(write_catalogue(tmp_path, source=str(SKETCH), base=str(SKETCH)))
    with pytest.raises(CatalogueError, match=r"base: fine-tune.safetensors is a file; name the folder"):
        file = "fine-tune.safetensors"
        read_catalogue(write_catalogue(tmp_path, source=file, base=file))


# In the tiny model's place.


@pytest.fixture(scope="module")
def tensors(tiny_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(tiny_folder / "transformer" / "diffusion_pytorch_model.safetensors")


@pytest.fixture
def made(tiny_folder: Path, tmp_path: Path) -> Callable[..., Engine]:
    """An engine with the tiny model as `tiny`, and as `single` with this file for its transformer."""

    def make(file: str = "fine-tune.safetensors", base: Path = tiny_folder, **changes: Any) -> Engine:
        single = entry(tmp_path / file, "single", base=str(base), **changes)
        return Engine(catalogue(tmp_path, single, entry(tiny_folder)))

    return make


def unavailable(engine: Engine, *words: str) -> None:
    """Checks that `single` is listed with these words as the reason, and the other model is the default."""
    single = next(model for model in engine.models() if model["id"] == "single")
    assert not single["available"]
    for word in words:
        assert word in single["reason"], single["reason"]
    for word in ("cache", "other settings", "/tmp", str(Path.home())):
        assert word not in single["reason"]
    assert engine.default_model == "tiny"
    with pytest.raises(ModelUnavailable) as refused:
        draw(engine, model="single", width=64, height=64)
    assert single["reason"] in str(refused.value)


LORA = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
KOHYA = "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"
FLUX = "double_blocks.0.img_attn.qkv.lora_down.weight"
BLOCK = "transformer_blocks.0.attn"
QKV = "joint_blocks.0.x_block.attn.qkv.weight"
Z = ("layers.0.attention.qkv.weight", "cap_embedder.0.weight", "noise_refiner.0.attention.qkv.weight")


def rows(*names: str, dtype: torch.dtype = torch.float32) -> bytes:
    return save({name: torch.zeros(16, 8, dtype=dtype) for name in names})


NOT_A_TRANSFORMER = {
    "a LoRA": (
        rows(LORA),
        ["is a LoRA (rank 16, for Stable Diffusion 3 or 3.5)", "not a transformer's weights"],
    ),
    "kohya's LoRA": (rows(KOHYA), ["is a LoRA (rank 16, for Stable Diffusion 3 or 3.5)", "merge it"]),
    "a LoRA for FLUX": (rows(FLUX), ["is a LoRA (rank 16, for FLUX)"]),
    "FLUX": (
        rows("double_blocks.0.img_attn.qkv.weight"),
        ["is a transformer such as FLUX's", "family sd3 means"],
    ),
    "Z-Image": (
        rows(*Z),
        ["the transformer of Z-Image", "mend `family`"],
    ),
    "SDXL": (
        rows("model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.middle_block.0.weight"),
        ["is a UNet of Stable Diffusion 1, 2 or XL"],
    ),
    "a VAE": (rows("encoder.conv_in.weight", "decoder.conv_in.weight"), ["is a VAE"]),
    "a text encoder": (rows("encoder.block.0.layer.0.SelfAttention.q.weight"), ["is a T5 text encoder"]),
    "a ControlNet": (rows("controlnet_blocks.0.weight", f"{BLOCK}.to_q.weight"), ["is a ControlNet"]),
    "something": (rows("w"), ["no tensors of a transformer that is known"]),
    "no tensors": (save({}), ["no tensors of a transformer"]),
    "scaled fp8": (
        rows(QKV, "joint_blocks.0.x_block.attn.qkv.scale_weight"),
        ["is quantised", "16 bits"],
    ),
    "8-bit integers": (rows(QKV, dtype=torch.int8), ["is quantised"]),
    "empty": (b"", ["is damaged: it is empty"]),
    "HTML": (b"\n<!doctype html><html>Log in</html>" * 9, ["it is a web page (HTML", "download it again"]),
    "a short page": (b"<html>", ["it is a web page (HTML"]),
    "GGUF": (b"GGUF" + bytes(99), ["is in GGUF", "safetensors file"]),
    "a pickle": (pickle.dumps({"state_dict": {}}), ["PyTorch's own format (a pickle"]),
    "a zipped pickle": (b"PK\x03\x04" + bytes(99), ["PyTorch's own format (a pickle"]),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", ["is a Git LFS pointer"]),
    "JSON": (b'{"error": "no"}', ["is JSON, not weights"]),
    "noise": (bytes(range(255, 0, -1)), ["is no safetensors file, or a damaged one"]),
    "cut in its header": (rows(QKV)[:40], ["is damaged: it ends after 40 bytes"]),
    "a header of garbage": (
        (20).to_bytes(8, "little") + b'{"a": {"dtype": 1}} ' + bytes(9),
        ["is damaged: its header can't be read"],
    ),
    "too long": (rows(QKV) + b"\0", ["it goes on behind the last tensor"]),
}


@pytest.mark.parametrize("content, words", NOT_A_TRANSFORMER.values(), ids=NOT_A_TRANSFORMER)
def test_a_file_that_is_no_transformer_is_listed_with_what_it_is_and_what_to_do(
    made: Callable[..., Engine], tmp_path: Path, content: bytes, words: list[str]
) -> None:
    (tmp_path / "fine-tune.safetensors").write_bytes(content)
    unavailable(made(), "fine-tune.safetensors", *words)


def test_a_file_that_was_cut_says_how_much_is_there_and_draws_once_it_is_whole(
    made: Callable[..., Engine], tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    whole = save(tensors)
    file = tmp_path / "fine-tune.safetensors"
    file.write_bytes(whole[: len(whole) - 1000])
    engine = made()
    unavailable(engine, "is damaged: it ends after", "B of", "copy or download it again")
    file.write_bytes(whole)
    assert draw(engine, model="single", width=64, height=64).phase == "finished"


def test_a_file_that_may_not_be_read_says_so(made: Callable[..., Engine], tmp_path: Path) -> None:
    (tmp_path / "fine-tune.safetensors").touch()
    engine = made()
    (tmp_path / "fine-tune.safetensors").unlink()
    unavailable(engine, "fine-tune.safetensors can't be read (No such file or directory)")


def test_a_file_that_does_not_fit_its_base_fails_with_both_their_names_and_what_differs(
    made: Callable[..., Engine], tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    def failed(content: dict[str, torch.Tensor], *words: str) -> None:
        save_file(content, tmp_path / "fine-tune.safetensors")
        last = draw(made(), model="single", width=64, height=64)
        assert last.phase == "failed"
        for word in ("fine-tune.safetensors is no transformer like that of sd3", *words):
            assert word in str(last.error), last.error

    halves = {name: tensor for name, tensor in tensors.items() if "blocks.1." not in name}
    failed(halves, "it lacks", "transformer_blocks.1.")
    failed(tensors | {"context_embedder.weight": torch.zeros(4, 4)}, "context_embedder.weight is 4 × 4 there")
    more = {name.replace("blocks.1.", "blocks.2."): one.clone() for name, one in tensors.items()}
    failed(tensors | more, "it has", "tensors more, transformer_blocks.2.")
    renamed = original(tensors)
    failed({name: one for name, one in renamed.items() if "y_embedder" not in name}, "y_embedder")
    failed({name: one for name, one in renamed.items() if "blocks.1." not in name}, "it lacks 28 of 67")


def test_what_a_file_has_besides_its_transformer_does_no_harm(
    made: Callable[..., Engine], tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    save_file(tensors | {"logit_scale": torch.zeros(1)}, tmp_path / "fine-tune.safetensors")
    same(made())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_transformer_in_its_original_names_draws_the_same_picture(
    made: Callable[..., Engine], tmp_path: Path, tensors: dict[str, torch.Tensor], prefix: str
) -> None:
    save_file(original(tensors, prefix), tmp_path / "fine-tune.safetensors")
    same(made())


def test_of_a_whole_checkpoint_the_transformer_counts_and_is_all_that_is_read(
    made: Callable[..., Engine], tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    others = {
        "first_stage_model.decoder.conv_in.weight": torch.zeros(512, 512),
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(512, 512),
    }
    save_file(original(tensors, "model.diffusion_model.") | others, tmp_path / "fine-tune.safetensors")
    engine = made()
    same(engine)
    sizes = {one.size for one in engine.residency() if "fine-tune" in one.name or one.name == "transformer"}
    assert len(sizes) == 1


def test_the_files_own_ending_does_not_matter(
    made: Callable[..., Engine], tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    save_file(tensors, tmp_path / "fine-tune.sft")
    same(made("fine-tune.sft"))


def test_a_file_of_another_family_draws_as_that_ones_folder_does(tmp_path: Path) -> None:
    folder = tiny_z_image(tmp_path / "z")
    (weights,) = (folder / "transformer").glob("*.safetensors")
    shutil.copy(weights, tmp_path / "fine-tune.safetensors")
    z_image = {"family": "z-image", "preview": "flux"}
    single = entry(tmp_path / "fine-tune.safetensors", "single", base=str(folder), **z_image)
    same(Engine(catalogue(tmp_path, entry(folder, **z_image), single)))


def same(engine: Engine) -> None:
    """Checks that both models draw the same."""
    one, other = (draw(engine, model=model, width=64, height=64) for model in ("tiny", "single"))
    assert (one.phase, other.phase) == ("finished", "finished"), other.error
    assert (pixels(one.images[0]) == pixels(other.images[0])).all()
