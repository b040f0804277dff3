"""A transformer of Stable Diffusion 3 in the names of its original release, which diffusers reads: as
fine-tunes are shared in one file, alone or in a whole checkpoint."""

from __future__ import annotations

import torch

_BLOCK = {
    "x_block.attn.proj": "attn.to_out.0",
    "context_block.attn.proj": "attn.to_add_out",
    "x_block.adaLN_modulation.1": "norm1.linear",
    "context_block.adaLN_modulation.1": "norm1_context.linear",
    "x_block.mlp.fc1": "ff.net.0.proj",
    "x_block.mlp.fc2": "ff.net.2",
    "context_block.mlp.fc1": "ff_context.net.0.proj",
    "context_block.mlp.fc2": "ff_context.net.2",
}
_FUSED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_REST = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}


def original(tensors: dict[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a diffusers SD3Transformer2DModel without norms of queries and keys, renamed, each name
    behind `prefix`."""
    layers = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks."))
    found = {"pos_embed": tensors["pos_embed.pos_embed"]}
    for end in ("weight", "bias"):
        for new, old in _REST.items():
            found[f"{new}.{end}"] = tensors[f"{old}.{end}"]
        for layer in range(layers):
            block, old = f"joint_blocks.{layer}", f"transformer_blocks.{layer}"
            for name, its in _BLOCK.items():
                if f"{old}.{its}.{end}" in tensors:
                    found[f"{block}.{name}.{end}"] = tensors[f"{old}.{its}.{end}"]
            for name, three in _FUSED.items():
                found[f"{block}.{name}.{end}"] = torch.cat([tensors[f"{old}.{its}.{end}"] for its in three])
    # The original has shift before scale where diffusers has scale before shift.
    for name in (
        f"joint_blocks.{layers - 1}.context_block.adaLN_modulation.1",
        "final_layer.adaLN_modulation.1",
    ):
        for end in ("weight", "bias"):
            found[f"{name}.{end}"] = torch.cat(found[f"{name}.{end}"].chunk(2)[::-1])
    return {prefix + name: tensor.contiguous() for name, tensor in found.items()}
