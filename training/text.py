"""Two CLIP text encoders and a T5 encoder, tiny and trained from nothing, and their tokenizers.

The CLIPs cut what stands in quotes into pieces, T5 reads it letter by letter. That alone makes no
speller of T5: where the CLIPs were let, they learned the vocabulary by heart, a piece at its absolute
place, and the MMDiT asked nothing of T5. So in training the CLIPs read another word than the
one drawn (`captions.misquoted`), and without T5 the model cannot spell.
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from training.captions import QUOTES

CLIP_WIDTH = 96  # two CLIPs side by side are as wide as T5: nothing is padded
T5_WIDTH = 192
START, END = "<|startoftext|>", "<|endoftext|>"


def without_quoted(caption: str) -> str:
    """The caption less what it quotes: vocabularies are made of what is said, not of words drawn."""
    return re.sub(r"[\"'“‘][^\"'”’]*[\"'”’]", '"', caption)


def train_clip_tokenizer(captions: list[str], size: int, length: int) -> CLIPTokenizer:
    """Byte-level BPE in CLIP's format (Radford et al. 2021), lower-cased."""
    bpe = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        end_of_word_suffix="</w>",
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((without_quoted(caption).lower() for caption in captions), trainer)
    vocabulary = bpe.get_vocab()
    # CLIP's tokenizer expects every byte also as the end of a word; BPE lists only those it saw.
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(f"{byte}</w>", len(vocabulary))
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges_of(bpe.model), model_max_length=length,
        pad_token=END, unk_token=END, bos_token=START, eos_token=END,
    )  # fmt: skip


def merges_of(model: models.BPE) -> list[tuple[str, str]]:
    """The learned merges, in order; the library shows them only in its serialised state."""
    merges = json.loads(model.__getstate__())["merges"]
    return [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]


def make_t5_tokenizer(captions: list[str], length: int) -> T5Tokenizer:
    """A Unigram vocabulary of whole words and single characters, and nothing in between.

    A word the captions use is one token; any other is spelled out letter by letter, and so is
    everything in quotes, because a quoted word does not begin with a space.
    """
    counts = Counter(
        word.strip(",.")
        for caption in captions
        for word in without_quoted(caption).split()
        if sum(letter.isupper() for letter in word) < 2 and not word.startswith('"')
    )
    words = sorted(f"▁{word}" for word, count in counts.items() if word and count >= 2)
    characters = [*string.ascii_letters, *string.digits, *string.punctuation, *"“”‘’"]
    # The likeliest split wins: a word (-1) before a space and its letters (-1.5 or more).
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.5)]
    pieces += [(word, -1.0) for word in words]
    pieces += [(f"▁{quote}", -1.0) for quote in QUOTES]
    pieces += [(character, -5.0) for character in characters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def new_clip(tokenizer: CLIPTokenizer, length: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=CLIP_WIDTH, intermediate_size=4 * CLIP_WIDTH,
        projection_dim=CLIP_WIDTH, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=length, hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def new_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Many narrow heads: one for each distance between a letter and the quotes around it."""
    return T5EncoderModel(T5Config(
        vocab_size=len(tokenizer), d_model=T5_WIDTH, d_ff=640, d_kv=24, num_layers=3, num_heads=8,
        feed_forward_proj="gated-gelu", dropout_rate=0.0,
    ))  # fmt: skip


@dataclass
class TextStack:
    """The three encoders with their tokenizers. Both CLIPs read the same tokens."""

    clip_tokenizer: CLIPTokenizer
    t5_tokenizer: T5Tokenizer
    clip_l: CLIPTextModelWithProjection
    clip_g: CLIPTextModelWithProjection
    t5: T5EncoderModel
    length: int

    @classmethod
    def new(cls, captions: list[str], clip_vocabulary: int, length: int) -> TextStack:
        clip_tokenizer = train_clip_tokenizer(captions, clip_vocabulary, length)
        t5_tokenizer = make_t5_tokenizer(captions, length)
        clips = [new_clip(clip_tokenizer, length) for _ in range(2)]
        return cls(clip_tokenizer, t5_tokenizer, *clips, new_t5(t5_tokenizer), length)

    @classmethod
    def load(cls, folder: Path) -> TextStack:
        """The stack of a saved pipeline, ready to be trained on."""
        clip_tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        t5_tokenizer = T5Tokenizer.from_pretrained(folder / "tokenizer_3")
        clips = [
            CLIPTextModelWithProjection.from_pretrained(folder / part, dtype=torch.float32)
            for part in ("text_encoder", "text_encoder_2")
        ]
        t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_3", dtype=torch.float32)
        for encoder in clips:
            encoder.train().requires_grad_(True)
        return cls(clip_tokenizer, t5_tokenizer, *clips, t5, t5_tokenizer.model_max_length)

    @property
    def encoders(self) -> list[torch.nn.Module]:
        return [self.clip_l, self.clip_g, self.t5]

    def to(self, device: torch.device) -> TextStack:
        for encoder in self.encoders:
            encoder.to(device)
        return self

    def tokenize(self, for_clip: list[str], for_t5: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The CLIPs' and T5's token ids of their captions, padded: [N, length] int32 each."""
        options = {"padding": "max_length", "max_length": self.length, "truncation": True}
        clip = self.clip_tokenizer(for_clip, **options).input_ids
        t5 = self.t5_tokenizer(for_t5, **options).input_ids
        return torch.tensor(clip, dtype=torch.int32), torch.tensor(t5, dtype=torch.int32)

    def encode(
        self, clip_ids: torch.Tensor, t5_ids: torch.Tensor, drop_t5: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Exactly what diffusers' SD3 pipeline feeds the transformer (Esser et al. 2024, §4).

        Returns the token embeddings [B, 2 · length, 192], the CLIPs' side by side and then T5's, and
        the CLIPs' pooled embeddings [B, 192]. Where `drop_t5` [B] is true T5's are zeros, as when
        the pipeline is loaded without T5.
        """
        clip_l = self.clip_l(clip_ids.long(), output_hidden_states=True)
        clip_g = self.clip_g(clip_ids.long(), output_hidden_states=True)
        clip = torch.cat([clip_l.hidden_states[-2], clip_g.hidden_states[-2]], 2)
        with torch.no_grad():  # it was trained before (`spelling`), as SD3's was
            t5 = self.t5(t5_ids.long()).last_hidden_state
        t5 = torch.where(drop_t5[:, None, None], torch.zeros_like(t5), t5)
        clip = F.pad(clip, (0, t5.shape[2] - clip.shape[2]))
        return torch.cat([clip, t5], 1), torch.cat([clip_l.text_embeds, clip_g.text_embeds], 1)
