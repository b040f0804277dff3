"""Prompt embeddings, kept for the next drawing with the same prompt: a new seed, another size or another
variant with the same text encoders needn't read it again, nor have the encoders on the GPU for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

import torch

MOST_BYTES = 128_000_000
"""Bytes of host memory; SD3.5's of a prompt and a negative one are 5 MB in 16 bits (333 tokens)."""

Embeddings = dict[str, Any]
"""Keyword arguments of a pipeline's call: tensors, lists of tensors, or None."""


class EmbeddingCache:
    """The newest embeddings, in host memory, least recently used first; at most `most` bytes of them."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Embeddings] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Embeddings | None:
        """What was kept under this key, in host memory; None where there is nothing.

        Args:
            key: all that determines the embeddings: text encoders, prompts, length, guidance on or off.
        """
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: Hashable, embeddings: Embeddings) -> None:
        self._kept[key] = moved(embeddings, torch.device("cpu"))
        self._kept.move_to_end(key)
        while sum(map(_bytes, self._kept.values())) > self._most:
            self._kept.popitem(last=False)


def moved(value: Any, device: torch.device) -> Any:
    """Embeddings, or a part of them, on the device."""
    if isinstance(value, dict):
        return {name: moved(one, device) for name, one in value.items()}
    if isinstance(value, list):
        return [moved(one, device) for one in value]
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list):
        return sum(map(_bytes, value))
    return value.nbytes if isinstance(value, torch.Tensor) else 0
