"""The source of a library as it is installed, whatever was replaced in this process."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

DEFINITIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@cache
def module_source(module: str) -> str:
    """The text of this module."""
    found = find_spec(module)
    assert found is not None and found.origin is not None, f"{module} has gone"
    return Path(found.origin).read_text(encoding="utf-8")


@cache
def source(module: str, name: str) -> str:
    """The source of a function or class in this module, named as Class.method; of several, the last."""
    text = module_source(module)
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        found = [one for one in ast.walk(node) if isinstance(one, DEFINITIONS) and one.name == part]
        assert found, f"{module} has no {name} any more"
        node = found[-1]
    segment = ast.get_source_segment(text, node)
    assert segment is not None
    return segment


def assert_unchanged(ours: str, sources: dict[str, str]) -> None:
    """Asserts that these functions' sources are those that a patch was written for.

    Args:
        ours: where the patch stands, as api/gradio/patches.py: wrap_push.
        sources: the first 12 digits of each source's SHA-256, by module:function.
    """
    changed = {}
    for name, known in sources.items():
        found = hashlib.sha256(source(*name.split(":")).encode()).hexdigest()[:12]
        if found != known:
            changed[name] = found
    assert not changed, f"Read these again, mend {ours}, and put their new digests here: {changed}"
