"""The list in docs/library-patches.md: all patches, in the order in which it names their libraries."""

from __future__ import annotations

from tests.contracts.patches import (
    authlib,
    diffusers,
    gradio,
    huggingface_hub,
    mcp,
    python,
    spaces,
    starlette,
    uvicorn,
)

LIBRARIES = {
    "gradio": gradio,
    "uvicorn": uvicorn,
    "starlette": starlette,
    "mcp": mcp,
    "spaces": spaces,
    "authlib": authlib,
    "diffusers": diffusers,
    "huggingface_hub": huggingface_hub,
    "python": python,
}
PATCHES = tuple(patch for library in LIBRARIES.values() for patch in library.PATCHES)
VERSIONS = {name: library.VERSION for name, library in LIBRARIES.items()}
"""For which the patches were written; requirements.txt pins them."""


def patches_table() -> str:
    """A Markdown table: a row for each."""
    rows = [("library", "in it", "our file", "why", "what tells that it has moved"), ("---",) * 5]
    rows += [
        (
            f"{one.library} {VERSIONS[one.library]}",
            one.place,
            f"`{one.file}`",
            one.reason,
            f"`{one.test.partition('::')[2]}`",
        )
        for one in PATCHES
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
