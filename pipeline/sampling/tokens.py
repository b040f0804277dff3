"""What the text encoders really read of a prompt.

SD3.5's CLIPs read 77 tokens and T5 256 to 512; diffusers cuts the rest and (0.42) reports the wrong words
for T5. So we count with a copy of each tokenizer and say, in the prompt's own words, what was cut. And what
other programs take for instructions, these encoders read as words like any others: that is said, too.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.catalog.spec import ModelSpec
from pipeline.families import Reader

USUAL_TOKENS = 256
"""The length diffusers' SD3 pipeline pads T5 to by default; a longer prompt gets the model's full length."""
_LONGEST_QUOTE = 200
_QUOTED = re.compile(r'“[^“”]*”|„[^„“”]*[“”]|«[^«»]*»|"[^"]*"')
"""Text that the picture is to show."""
_SYNTAX = re.compile(
    r"""
    # (red:1.3), (score_9:2); but not (at 10:30), (16:9) or (ISO:400)
    \( (?:[^()]|\([^()]*\))* (?:[^\s\d(]|[^\W\d]\d+) \s*:\s* [+-]?(?:\d|\d?\.\d{1,3}) \s*\)
    | \(\([^()]+\)\)                                  # ((red))
    | \[ [^\[\]:]* : [^\[\]:]* : \s*\d*\.?\d+\s* \]     # [cat:dog:0.5]
    | \[ [^\[\]|]+ \| [^\[\]]+ \]                       # [cat|dog]
    | < (?:lora|lyco|hypernet|embedding|ti) : [^<>]+ >
    | \b embedding:[\w./-]+
    | (?<!\w) __[A-Za-z0-9*][\w/*.-]{0,80}?__ (?!\w)   # __colours__
    | \{ [^{}|]+ \| [^{}]* \}                           # {red|blue}
    | (?<![A-Z]\s) \b BREAK \b (?!\s+[A-Z]{2})         # but not COFFEE BREAK or BREAK GLASS
    """,
    re.VERBOSE,
)
"""What AUTOMATIC1111's web UI, ComfyUI and dynamic prompts give a meaning of its own: weights, prompt
editing, LoRAs and embeddings by name, wildcards, alternatives, and parts that are encoded apart."""
_MOST_NAMED = 3


def sequence_length(
    readers: list[Reader], tokenizers: dict[str, Any], prompts: list[str], longest: int
) -> int:
    """The tokens that the longest-reading encoder is given: the usual number, or the model's most where a
    prompt needs more.

    Args:
        longest: `limits.tokens[1]` of the model.
    """
    reader = readers[-1]
    needed = max(len(_tokens(tokenizers[reader.tokenizer], reader, prompt)) for prompt in prompts)
    return min(longest, USUAL_TOKENS) if needed <= USUAL_TOKENS else longest


def syntax_warnings(name: str, prompt: str) -> list[str]:
    """One sentence that quotes what is syntax elsewhere and plain words here; empty where nothing is. What
    stands in quotation marks is text for the picture, and never meant.

    Args:
        name: what to call this prompt: "prompt" or "negative prompt".
    """
    bare = _QUOTED.sub(" ", prompt)
    found = list(dict.fromkeys(match[0] for match in _SYNTAX.finditer(bare)))
    if not found:
        return []
    named = ", ".join(_quote(one, 40) for one in found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return [f"Read as plain words in the {name}, for that syntax means nothing here: {named}{more}."]


def truncation_warnings(
    readers: list[Reader], tokenizers: dict[str, Any], name: str, prompt: str, tokens: int
) -> list[str]:
    """One sentence for what was cut, quoting the words; empty where every encoder reads everything.

    Args:
        name: what to call this prompt: "prompt" or "negative prompt".
        tokens: the length given to the longest-reading encoder.
    """
    unread = [_unread(reader, tokenizers[reader.tokenizer], prompt, tokens) for reader in readers]
    if unread[-1]:
        return [f"The {name} is too long for this model. Not read: {_quote(unread[-1])}"]
    if longest := max(unread, key=len):
        return [f"The {name} is too long for CLIP; only T5 reads its end: {_quote(longest)}"]
    return []


def artefact_warnings(
    spec: ModelSpec, reader: Reader, tokenizers: dict[str, Any], prompts: dict[str, str]
) -> list[str]:
    """One sentence for each prompt that is longer than what the model draws cleanly (`clean_tokens`).

    Args:
        reader: the one that reads longest.
        prompts: by what to call them.
    """
    if spec.clean_tokens is None:
        return []
    tokenizer = tokenizers[reader.tokenizer]
    lengths = {name: len(_tokens(tokenizer, reader, text)) for name, text in prompts.items()}
    return [
        f"The {name} is {length} tokens long. Past {spec.clean_tokens}, {spec.name} may draw artefacts at "
        "the picture's edges: shorten it if they show."
        for name, length in lengths.items()
        if length > spec.clean_tokens
    ]


def _unread(reader: Reader, tokenizer: Any, prompt: str, tokens: int) -> str:
    """The end of the prompt, from the first word that is not read whole."""
    spans = _tokens(tokenizer, reader, prompt)
    length = reader.length(tokenizer, tokens)
    if len(spans) <= length:
        return ""
    # Tokenizers keep their own special tokens when they cut; a chat template is cut like any words.
    words = spans if reader.chat else [span for span in spans if span is not None]
    cut = words[length - (len(spans) - len(words))]
    if cut is None or cut[0] >= len(prompt):
        return ""
    start = max(prompt.rfind(" ", 0, cut[0] + 1), 0)
    return prompt[start:].strip()


def _tokens(tokenizer: Any, reader: Reader, prompt: str) -> list[tuple[int, int] | None]:
    """For each token the span of the prompt it stands for; None for special ones."""
    text, shift = prompt, 0
    if reader.chat:
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
        None if special and not reader.chat else (max(start - shift, 0), end - shift)
        for (start, end), special in zip(
            encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True
        )
    ]


def _quote(words: str, longest: int = _LONGEST_QUOTE) -> str:
    return f"“{words if len(words) <= longest else words[: longest - 1] + '…'}”"
