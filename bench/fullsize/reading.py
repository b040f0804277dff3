"""Tokenizers of the real classes and sizes with made-up vocabularies: every string of letters in turn. What
they make of a prompt is no word of it, and as long to load, to copy and to run as the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice, product
from string import ascii_lowercase, printable
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen3's chat template as far as one prompt goes."""


def clip(size: int) -> CLIPTokenizer:
    """CLIP's: byte-pair encoding of `size` tokens (49,408 on the Hub), reads 77."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    merges = []
    for word in islice(_words(), (size - 2 - len(vocabulary)) // 2):
        for end in ("", "</w>"):
            merges.append((word[:-1], word[-1] + end))
            vocabulary.append(word + end)
    special = ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate([*vocabulary, *special])},
        merges=merges,
        model_max_length=77,
    )


def t5(size: int) -> T5Tokenizer:
    """T5's: a unigram model of `size` pieces (32,100 on the Hub, 100 of them sentinels), reads 512."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *printable.strip()]
    pieces += islice((f"▁{word}" for word in _words()), size - 100 - len(pieces))
    scores = [0.0 if number < 3 else -1.0 - number / size for number in range(len(pieces))]
    return T5Tokenizer(vocab=list(zip(pieces, scores)), extra_ids=100, model_max_length=512)


def qwen(size: int) -> Qwen2Tokenizer:
    """Qwen's: byte-pair encoding of `size` tokens (151,669 on the Hub) and a chat template."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = sorted(ByteLevel.alphabet())
    words = list(islice(_words(), size - len(special) - len(vocabulary)))
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate([*vocabulary, *words, *special])},
        merges=[(word[:-1], word[-1]) for word in words],
        additional_special_tokens=special[1:],
        model_max_length=131072,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


TOKENIZERS: dict[str, Any] = {"clip": clip, "t5": t5, "qwen": qwen}


def _words() -> Iterator[str]:
    """aa, ab, …, zz, aaa, …: every one's beginning comes before it."""
    for length in count(2):
        for letters in product(ascii_lowercase, repeat=length):
            yield "".join(letters)
