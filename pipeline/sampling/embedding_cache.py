"""Prompt embeddings, kept for the next drawing with the same prompt: a new seed, another size or another
variant with the same text encoders needn't read it again, nor have the encoders on the GPU for it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch

MOST_BYTES = 64_000_000
"""Bytes of the device; SD3.5's of a prompt and a negative one are 5 MB in 16 bits (333 tokens)."""

Embeddings = dict[str, Any]
"""Keyword arguments of a pipeline's call: tensors, lists of tensors, or None."""


@dataclass(frozen=True)
class EmbeddingKey:
    """All that determines a prompt's embeddings.

    family: how its encoders are used. encoders: their components' keys, which say in which precision and
    under which profile they run and what patches change them. negative_prompt: None where guidance is off.
    tokens: the length given to the longest-reading encoder.
    """

    family: str
    encoders: tuple[tuple[str, ...], ...]
    prompt: str
    negative_prompt: str | None
    tokens: int


class EmbeddingCache:
    """The newest embeddings, where they were made, least recently used first; at most `most` bytes."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[EmbeddingKey, Embeddings] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: EmbeddingKey) -> Embeddings | None:
        """Return what was kept under this key, or None."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: EmbeddingKey, embeddings: Embeddings) -> None:
        self._kept[key] = embeddings
        self._kept.move_to_end(key)
        while sum(map(_bytes, self._kept.values())) > self._most:
            self._kept.popitem(last=False)


def _bytes(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list):
        return sum(map(_bytes, value))
    return value.nbytes if isinstance(value, torch.Tensor) else 0
