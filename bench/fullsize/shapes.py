"""The true shapes of the four models: which parts each has, their configurations and parameter counts, and
the same house with tiny rooms for a machine without a GPU. Knows nothing of files.

Configurations are those of the repositories on the Hub; counts are facts about them, which make.py holds
the built modules against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Part:
    """One component: its library and class, its configuration, the dtype it is stored in, its shard size.

    parameters: how many it has by what is published, None where tiny. tolerance: how far off that may be.
    """

    kind: tuple[str, str]
    config: dict[str, Any]
    dtype: str
    shard: str
    parameters: float | None = None
    tolerance: float = 0.01


@dataclass(frozen=True)
class Shape:
    """One model: its id in models.yaml, its folder, its pipeline, its parts by component name.

    shared: component → name of the part that other variants have too. own: the parts it has alone.
    tokenizers: component → kind and number of tokens, see reading.py. changes: what its entry in
    models.yaml has otherwise.
    """

    id: str
    folder: str
    pipeline: str
    own: dict[str, Part]
    shared: dict[str, str]
    tokenizers: dict[str, tuple[str, int]]
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shapes:
    """All models of one size. std: of the normal distribution that matrices are drawn from."""

    models: dict[str, Shape]
    shared: dict[str, Part]
    std: float


CLIP = ("transformers", "CLIPTextModelWithProjection")
T5 = ("transformers", "T5EncoderModel")
QWEN = ("transformers", "Qwen3Model")
SD3 = ("diffusers", "SD3Transformer2DModel")
Z_IMAGE = ("diffusers", "ZImageTransformer2DModel")
VAE = ("diffusers", "AutoencoderKL")

_SD3_SHARED = {"text_encoder": "clip-l", "text_encoder_2": "clip-g", "text_encoder_3": "t5", "vae": "vae"}


def _sd3(model: str, transformer: Part, clip: int = 49408, t5: int = 32100, **changes: Any) -> Shape:
    return Shape(
        id=model,
        folder=model,
        pipeline="StableDiffusion3Pipeline",
        own={"transformer": transformer},
        shared=_SD3_SHARED,
        tokenizers={"tokenizer": ("clip", clip), "tokenizer_2": ("clip", clip), "tokenizer_3": ("t5", t5)},
        changes=changes,
    )


def _z_image(encoder: Part, transformer: Part, vae: Part, qwen: int = 151669, **changes: Any) -> Shape:
    return Shape(
        id="z-image-turbo",
        folder="z-image-turbo",
        pipeline="ZImagePipeline",
        own={"text_encoder": encoder, "transformer": transformer, "vae": vae},
        shared={},
        tokenizers={"tokenizer": ("qwen", qwen)},
        changes=changes,
    )


def _clip(hidden: int, layers: int, act: str, vocabulary: int = 49408) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": hidden * 4,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "projection_dim": hidden,
        "hidden_act": act,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }


def _vae(channels: tuple[int, ...], scaling: float, shift: float, groups: int = 32) -> dict[str, Any]:
    return {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "latent_channels": 16,
        "layers_per_block": 2,
        "norm_num_groups": groups,
        "sample_size": 1024,
        "scaling_factor": scaling,
        "shift_factor": shift,
        "force_upcast": True,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


_SD3_VAE = {"scaling": 1.5305, "shift": 0.0609}
_FLUX_VAE = {"scaling": 0.3611, "shift": 0.1159}
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
_QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
}


def _large(layers: int, heads: int, size: int, dual: int = 0, head: int = 64) -> dict[str, Any]:
    """An SD3 transformer; dual: how many of its first layers have dual attention."""
    return {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": layers,
        "attention_head_dim": head,
        "num_attention_heads": heads,
        "joint_attention_dim": 4096,
        "caption_projection_dim": heads * head,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": size,
        "dual_attention_layers": tuple(range(dual)),
        "qk_norm": "rms_norm",
    }


_HUB_DIFFUSERS, _HUB_TRANSFORMERS = "10GB", "5GB"
_BIG = Part(SD3, _large(38, 38, 192), "bfloat16", _HUB_DIFFUSERS, 8.06e9)
_MEDIUM = Part(SD3, _large(24, 24, 384, dual=13), "bfloat16", _HUB_DIFFUSERS, 2.24e9)

FULL = Shapes(
    std=0.02,
    shared={
        "clip-l": Part(CLIP, _clip(768, 12, "quick_gelu"), "float16", _HUB_TRANSFORMERS, 0.1237e9),
        "clip-g": Part(CLIP, _clip(1280, 32, "gelu"), "float16", _HUB_TRANSFORMERS, 0.6947e9),
        "t5": Part(T5, _T5_XXL, "float16", _HUB_TRANSFORMERS, 4.762e9),
        "vae": Part(VAE, _vae((128, 256, 512, 512), **_SD3_VAE), "bfloat16", _HUB_DIFFUSERS, 0.0838e9),
    },
    models={
        shape.id: shape
        for shape in (
            _sd3("sd3.5-large", _BIG),
            _sd3("sd3.5-large-turbo", _BIG),
            _sd3("sd3.5-medium", _MEDIUM),
            _z_image(
                Part(QWEN, _QWEN3_4B, "bfloat16", _HUB_TRANSFORMERS, 4.02e9),
                # diffusers' defaults are its true shape; the card rounds to 6 billion.
                Part(Z_IMAGE, {}, "bfloat16", _HUB_DIFFUSERS, 6.0e9, tolerance=0.05),
                Part(VAE, _vae((128, 256, 512, 512), **_FLUX_VAE), "bfloat16", _HUB_DIFFUSERS, 0.0838e9),
            ),
        )
    },
)

_ENTRY = {
    "needs": {},
    "defaults": {"width": 128, "height": 128},
    "limits": {"side": [32, 256], "pixels": [1024, 65536]},
}
_SMALL = {"clip": 1200, "t5": 700} | _ENTRY


def _small(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return config | {"joint_attention_dim": 32, "pooled_projection_dim": 32, "sample_size": 16} | changes


def _tiny_vae(which: dict[str, float]) -> Part:
    return Part(VAE, _vae((8, 8, 8, 8), **which, groups=4) | {"layers_per_block": 1}, "float32", "200KB")


TINY = Shapes(
    std=0.2,
    shared={
        "clip-l": Part(CLIP, _clip(16, 2, "quick_gelu", 1200), "float32", "200KB"),
        "clip-g": Part(CLIP, _clip(16, 2, "gelu", 1200), "float32", "200KB"),
        "t5": Part(
            T5,
            _T5_XXL
            | {"vocab_size": 700, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
            "float32",
            "50KB",
        ),
        "vae": _tiny_vae(_SD3_VAE),
    },
    models={
        shape.id: shape
        for shape in (
            _sd3("sd3.5-large", Part(SD3, _small(_large(4, 4, 32, head=8)), "float32", "200KB"), **_SMALL),
            _sd3(
                "sd3.5-large-turbo", Part(SD3, _small(_large(4, 4, 32, head=8)), "float32", "200KB"), **_SMALL
            ),
            # Ten layers: skip-layer guidance skips 7, 8 and 9.
            _sd3("sd3.5-medium", Part(SD3, _small(_large(10, 2, 32, 5, 8)), "float32", "200KB"), **_SMALL),
            _z_image(
                Part(
                    QWEN,
                    _QWEN3_4B
                    | {
                        "vocab_size": 300,
                        "hidden_size": 32,
                        "intermediate_size": 64,
                        "num_hidden_layers": 2,
                        "num_attention_heads": 2,
                        "num_key_value_heads": 1,
                        "head_dim": 16,
                    },
                    "float32",
                    "200KB",
                ),
                Part(
                    Z_IMAGE,
                    {
                        "dim": 32,
                        "n_layers": 2,
                        "n_refiner_layers": 1,
                        "n_heads": 2,
                        "n_kv_heads": 2,
                        "cap_feat_dim": 32,
                        "axes_dims": [4, 6, 6],
                        "axes_lens": [1536, 64, 64],
                    },
                    "float32",
                    "200KB",
                ),
                _tiny_vae(_FLUX_VAE),
                qwen=300,
                **_ENTRY,
            ),
        )
    },
)
SHAPES = {"full": FULL, "tiny": TINY}
