"""The links of a Markdown page, and the anchors that its headings have on GitHub and the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*$", re.DOTALL | re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n.*?^---$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(`+).+?\1")
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?\s*(?:\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6} +(.*?)(?: +#+)?$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """Every link's target as written, pictures' too; what stands in code is none."""
    text = _CODE.sub("`code`", _FENCE.sub("", text))
    yield from (match[1] for match in _LINK.finditer(text))


def relative_links(text: str) -> Iterator[tuple[str, str]]:
    """Of the links that don't lead to another site, the path and the anchor; either may be empty."""
    for target in links(text):
        if not re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE):
            path, _, anchor = target.partition("#")
            yield unquote(path), unquote(anchor)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings: small letters, hyphens for spaces, no punctuation; a second
    heading of the same words ends in -1, and so on."""
    found = dict[str, int]()
    text = _FENCE.sub("", _FRONT_MATTER.sub("", text))
    for match in _HEADING.finditer(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        while slug in found:
            found[slug] += 1
            slug = f"{slug}-{found[slug]}"
        found[slug] = 0
    return set(found)
