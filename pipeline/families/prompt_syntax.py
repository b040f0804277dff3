"""What other programs take for instructions in a prompt. The text encoders here read it as words like any
others, which is said in a warning.
"""

from __future__ import annotations

import re

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


def syntax_warnings(name: str, prompt: str) -> list[str]:
    """Return one sentence that quotes what is syntax elsewhere and plain words here; none where nothing is.
    What stands in quotation marks is text for the picture, and never meant.

    Args:
        name: what to call this prompt: "prompt" or "negative prompt".
    """
    bare = _QUOTED.sub(" ", prompt)
    found = list(dict.fromkeys(match[0] for match in _SYNTAX.finditer(bare)))
    if not found:
        return []
    named = ", ".join(quote(one, 40) for one in found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return [f"Read as plain words in the {name}, for that syntax means nothing here: {named}{more}."]


def quote(words: str, longest: int = _LONGEST_QUOTE) -> str:
    """The words in quotation marks, cut where they are longer than `longest` characters."""
    return f"“{words if len(words) <= longest else words[: longest - 1] + '…'}”"
