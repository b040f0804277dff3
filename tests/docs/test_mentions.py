"""Comments, docstrings and documents name files that there are."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import PurePosixPath

import pytest

from tests.support.tiny import ROOT

NAMED = re.compile(r"(?<![\w./-])((?:[\w-]+/)*\w+\.(?:py|js|css|sql|md|yaml|html))(?![\w(/])")
"""A file's name, or the end of its path."""
ELSEWHERE = {
    "sitecustomize.py": "Python",
    "sd3_impls.py": "Stability AI's sd3.5",
    "spaces/zero/__init__.py": "spaces",
    "spaces/zero/gradio.py": "spaces",
    "zero/api.py": "spaces",
    "zero/client.py": "spaces",
}
"""Names that aren't files of ours, and whose they are."""


@cache
def tracked() -> tuple[PurePosixPath, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(PurePosixPath(line) for line in listed.stdout.splitlines())


SOURCES = [path for path in tracked() if path.suffix in (".py", ".md", ".yaml", ".js")]


def prose(path: PurePosixPath) -> Iterator[tuple[int, str]]:
    """Lines of what is written for people in this file, with their numbers."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                for number, line in enumerate(str(node.value.value).splitlines()):
                    yield node.value.lineno + number, line
    else:
        yield from enumerate(text.splitlines(), 1)


def exists(name: str) -> bool:
    """Whether a file's path ends so, or the name is someone else's."""
    if name in ELSEWHERE:
        return True
    parts = PurePosixPath(name).parts
    return any(path.parts[-len(parts) :] == parts for path in tracked())


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_file_that_is_named_exists(path: PurePosixPath) -> None:
    gone = {
        f"{number}: {name}"
        for number, line in prose(path)
        for name in NAMED.findall(line)
        if not exists(name)
    }
    assert not gone, f"{path} names files that there aren't: {sorted(gone)}"
