"""What the text encoders really read of a prompt: which encoders there are and how far each reads is their
family's to say.

SD3.5's CLIPs read 77 tokens and T5 256 to 512; diffusers cuts the rest and (0.42) reports the wrong words
for T5. So we count with a copy of each tokenizer and say, in the prompt's own words, what was cut.
"""

from __future__ import annotations

from typing import Any

from pipeline.catalog.spec import ModelSpec
from pipeline.families import Family, TextEncoder
from pipeline.families.prompt_syntax import quote

_LONGEST_QUOTE = 200


def sequence_length(
    family: Family,
    encoders: list[TextEncoder],
    tokenizers: dict[str, Any],
    prompts: list[str],
    longest: int,
) -> int:
    """Return the tokens that the longest-reading encoder is given: the family's usual number, or the model's
    most where a prompt needs more.

    Args:
        longest: `limits.tokens[1]` of the model.
    """
    encoder = encoders[-1]
    needed = max(len(_tokens(tokenizers[encoder.tokenizer], encoder, prompt)) for prompt in prompts)
    return min(longest, family.usual_tokens) if needed <= family.usual_tokens else longest


def truncation_warnings(
    encoders: list[TextEncoder], tokenizers: dict[str, Any], name: str, prompt: str, tokens: int
) -> list[str]:
    """Return one sentence for what was cut, quoting the words; empty where every encoder reads everything.

    Args:
        name: what to call this prompt: "prompt" or "negative prompt".
        tokens: the length given to the longest-reading encoder.
    """
    unread = [_unread(encoder, tokenizers[encoder.tokenizer], prompt, tokens) for encoder in encoders]
    if unread[-1]:
        return [f"The {name} is too long for this model. Not read: {quote(unread[-1])}"]
    cut, longest = max(zip(encoders, unread), key=lambda one: len(one[1]))
    if longest:
        whole = encoders[-1].title
        return [f"The {name} is too long for {cut.title}; only {whole} reads its end: {quote(longest)}"]
    return []


def artefact_warnings(
    spec: ModelSpec, encoder: TextEncoder, tokenizers: dict[str, Any], prompts: dict[str, str]
) -> list[str]:
    """Return one sentence for each prompt that is longer than what the model draws cleanly (`clean_tokens`).

    Args:
        encoder: the one that reads longest.
        prompts: by what to call them.
    """
    if spec.clean_tokens is None:
        return []
    tokenizer = tokenizers[encoder.tokenizer]
    lengths = {name: len(_tokens(tokenizer, encoder, text)) for name, text in prompts.items()}
    return [
        f"The {name} is {length} tokens long. Past {spec.clean_tokens}, {spec.name} may draw artefacts at "
        "the picture's edges: shorten it if they show."
        for name, length in lengths.items()
        if length > spec.clean_tokens
    ]


def _unread(encoder: TextEncoder, tokenizer: Any, prompt: str, tokens: int) -> str:
    """The end of the prompt, from the first word that is not read whole."""
    spans = _tokens(tokenizer, encoder, prompt)
    length = encoder.length(tokenizer, tokens)
    if len(spans) <= length:
        return ""
    # Tokenizers keep their own special tokens when they cut; a chat template is cut like any words.
    words = spans if encoder.chat else [span for span in spans if span is not None]
    cut = words[length - (len(spans) - len(words))]
    if cut is None or cut[0] >= len(prompt):
        return ""
    start = max(prompt.rfind(" ", 0, cut[0] + 1), 0)
    return prompt[start:].strip()


def _tokens(tokenizer: Any, encoder: TextEncoder, prompt: str) -> list[tuple[int, int] | None]:
    """For each token the span of the prompt it stands for; None for special ones."""
    text, shift = prompt, 0
    if encoder.chat:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )
        shift = text.find(prompt)
    encoded = tokenizer(
        text,
        truncation=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    return [
        None if special and not encoder.chat else (max(start - shift, 0), end - shift)
        for (start, end), special in zip(
            encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
        )
    ]
