"""Paths as an owner writes them: in settings, in models.yaml, on the command line."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import quoted


def owner_path(text: str) -> Path:
    """The path that an owner means: `~` and `~name` at its beginning are home folders. Nobody's shell has
    seen to that in a file of settings, in YAML, or behind `=`.

    Raises:
        ValueError: in words: there is no such home folder.
    """
    path = os.path.expanduser(text)  # noqa: PTH111  # Path's own says nothing of why
    if text.startswith("~") and path == text:
        name = text[1:].partition("/")[0]
        whose = f"no user {quoted(name)} here" if name else "no home folder here, and HOME isn't set"
        raise ValueError(
            f"there is {whose}, so ~ stands for nothing in {quoted(text, 200)}: write the whole path"
        )
    return Path(path)
