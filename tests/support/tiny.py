"""What the tests draw with besides sketch: models of few random weights, made in a second in diffusers' own
layout, entries of models.yaml for them, and a gate that holds a call until a test lets it go.

The transformers' matrices have rows in blocks of 32 and of a multiple of 64 columns, as every real one's
have: quantized to 4 bits, bitsandbytes (0.50.2) keeps no others packed for a processor with AVX512-BF16.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from PIL import Image
from ruamel.yaml import YAML
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from pipeline.catalog.catalogue import Catalogue, read_catalogue
from pipeline.devices.hardware import Device
from pipeline.engine import Engine
from pipeline.events import Event
from tests import ROOT

SKETCH = ROOT / "weights" / "sketch"
PATIENCE = 600.0
"""Seconds: as long as a gate waits for what comes in a moment on an idle machine."""
SMALL = {"prompt": "a red apple", "model": "sketch", "width": 128, "height": 128, "steps": 4, "seed": 7}
"""A request that sketch draws in a moment."""
LIMITS = {
    "steps": [1, 60],
    "guidance": [0, 10],
    "pixels": [1024, 65536],
    "side": [32, 256],
    "images": [1, 4],
    "tokens": [1, 512],
    "multiple": 16,
    "total_pixels": 65536,
}
"""The limits of what the tests make: small, and wide enough for what they ask."""


def draw(engine: Engine, **values: Any) -> Event:
    """The last event of this request, SMALL where it says nothing."""
    return engine.start(engine.check(SMALL | values)).result()


def pixels(picture: bytes) -> np.ndarray:
    """A PNG or JPEG as [height, width, 3], 0 to 255."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)


def entry(source: Path, model: str = "tiny", **changes: Any) -> dict[str, Any]:
    """An entry of models.yaml for a tiny model; `changes` replace whole keys."""
    return {
        "id": model,
        "name": model.title(),
        "family": "sd3",
        "source": str(source),
        "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
        "device": "cpu",
        "defaults": {"steps": 4, "guidance": 3, "width": 64, "height": 64},
        "limits": LIMITS,
        "preview": "sd3",
    } | changes


def repository_entries() -> dict[str, dict[str, Any]]:
    """The entries of the repository's own models.yaml by id, for a file that lies elsewhere."""
    entries = {one["id"]: one for one in YAML(typ="safe").load(ROOT / "models.yaml")}
    entries["sketch"]["source"] = str(SKETCH)
    return entries


def own_entries() -> dict[str, dict[str, Any]]:
    """As `repository_entries`, without what binds them to a GPU, and of sizes that a CPU can draw."""
    entries = repository_entries()
    for one in entries.values():
        if one["id"] == "sketch":
            continue
        del one["needs"]
        one["defaults"] = one["defaults"] | {"width": 64, "height": 64}
        one["limits"] = one["limits"] | {name: LIMITS[name] for name in ("pixels", "side", "total_pixels")}
    return entries


def models_yaml(folder: Path, *entries: dict[str, Any]) -> Path:
    """A models.yaml with these entries (JSON is YAML)."""
    path = folder / "models.yaml"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def catalogue(folder: Path, *entries: dict[str, Any]) -> Catalogue:
    return read_catalogue(models_yaml(folder, *entries))


@dataclass(frozen=True)
class StandIn(Device):
    """Stands in for a CUDA GPU, which the test machine lacks: a device with memory budgets to Stepwise, the
    CPU to torch. What leaves it for its "host memory" is really copied and moved back."""

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")


def stand_in_gpu(
    monkeypatch: Any, memory: int = 10**9, host_memory: int = 10**9, dtype: str = "float32"
) -> StandIn:
    """Makes this machine one with such a GPU; memory in bytes."""
    gpu = StandIn("cuda", dtype, memory, "a stand-in", host_memory)
    monkeypatch.setattr("pipeline.devices.hardware.accelerator", lambda wanted: gpu)
    return gpu


def variant(folder: Path, original: Path, layers: int = 2, seed: int = 1) -> Path:
    """Another model with the text encoders and the VAE of `original`, the very files, and a transformer of
    its own: as SD3.5's variants are to each other."""
    shutil.copytree(original, folder, copy_function=os.link)
    shutil.rmtree(folder / "transformer")
    torch.manual_seed(seed)
    config = SD3Transformer2DModel.load_config(original / "transformer") | {"num_layers": layers}
    SD3Transformer2DModel.from_config(config).save_pretrained(folder / "transformer")
    return folder


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
        scaling_factor=1.5,
        shift_factor=0.06,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def tiny_sd3(folder: Path, layers: int = 2, **transformer: Any) -> Path:
    """A random SD3 pipeline under `folder`, with sketch's tokenizers. transformer: of its configuration."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(SKETCH / "tokenizer")
    tokenizer_3 = T5Tokenizer.from_pretrained(SKETCH / "tokenizer_3")
    clip = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    t5 = T5Config(vocab_size=len(tokenizer_3), d_model=64, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            num_layers=layers,
            attention_head_dim=32,
            num_attention_heads=2,
            joint_attention_dim=64,
            caption_projection_dim=64,
            pooled_projection_dim=64,
            pos_embed_max_size=32,
            **transformer,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(),
        text_encoder=CLIPTextModelWithProjection(clip),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip),
        tokenizer_2=CLIPTokenizer.from_pretrained(SKETCH / "tokenizer_2"),
        text_encoder_3=T5EncoderModel(t5),
        tokenizer_3=tokenizer_3,
    ).save_pretrained(folder)
    return folder


def tiny_sd35(folder: Path, medium: bool = False) -> Path:
    """A random pipeline of SD3.5's shape: RMS norms of queries and keys; Medium's with enough layers for its
    skip-layer guidance, the first 13 of them with attention twice."""
    shape = {"qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13)) if medium else ()}
    return tiny_sd3(folder, 14 if medium else 2, **shape)


def tiny_z_image(folder: Path) -> Path:
    """A random Z-Image pipeline under `folder`: its text encoder is a language model, its tokenizer reads
    bytes and wraps the prompt in a chat template, as Qwen3's does."""
    torch.manual_seed(0)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    reader = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    reader.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.decoder = decoders.ByteLevel()
    reader.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=reader, pad_token=special[0], eos_token=special[2], model_max_length=1024
    )
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    encoder = Qwen3Model(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=1024,
        )
    )
    transformer = ZImageTransformer2DModel(
        dim=192,  # its inner 8/3 of it are a multiple of 32, too
        n_layers=1,
        n_refiner_layers=1,
        n_heads=6,
        n_kv_heads=6,
        cap_feat_dim=64,
        axes_dims=[8, 12, 12],
        axes_lens=[1024, 64, 64],
    )
    for weight in transformer.parameters():  # its padding tokens start as uninitialised memory
        torch.nn.init.normal_(weight, std=0.05)
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=False),
        vae=_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


class Gate:
    """Holds one call of a function: `reached` is set when it is entered, `open` lets it go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.calls = 0
        self._open = threading.Event()

    def wait(self) -> None:
        """Until the held call has been entered."""
        assert self.reached.wait(PATIENCE), "the held call was never made"

    def open(self) -> None:
        self._open.set()

    def around(self, function: Callable[..., Any], call: int) -> Callable[..., Any]:
        @wraps(function)
        def held(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == call:
                self.reached.set()
                assert self._open.wait(PATIENCE), "the test never opened its gate"
            return function(*args, **kwargs)

        return held


def hold(monkeypatch: Any, owner: Any, name: str, call: int = 1) -> Gate:
    """Makes the `call`-th call of owner.name wait for its gate: the real thing, slowed for a test."""
    gate = Gate()
    monkeypatch.setattr(owner, name, gate.around(getattr(owner, name), call))
    return gate
