"""The list of library patches is whole: each stands where it says, has a test of its own and a row in the
documentation, was written for the version that is installed, and nothing reaches into a library beside it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.contracts.patches.patch import Patch
from tests.contracts.patches.table import PATCHES, VERSIONS, patches_table
from tests.support.tiny import ROOT

ROOMS = ("api", "cli", "jobs", "pipeline", "ui")
OURS = (*ROOMS, "app", "environment", "settings")
FILES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.py"), *(path for name in ROOMS for path in (ROOT / name).rglob("*.py")))
)
PUBLIC = {"os._exit", "tqdm.monitor_interval = "}
"""What Python and tqdm document."""


def text_of(path: str) -> str:
    """The text of a file of ours, or of all files of a folder."""
    found = ROOT / path
    files = [found] if found.is_file() else sorted(found.rglob("*.py"))
    return "".join(file.read_text(encoding="utf-8") for file in files)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda one: f"{one.file}: {one.code}")
def test_a_patch_stands_where_it_says_and_has_its_test(patch: Patch) -> None:
    assert patch.code in text_of(patch.file)
    file, _, name = patch.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_the_patches_were_written_for_the_versions_that_are_pinned() -> None:
    pinned = dict(re.findall(r"^([\w-]+)[=>]=([\w.]+)", text_of("requirements.txt"), re.MULTILINE))
    pinned["python"] = re.findall(r'python_version = "(.*)"', text_of("pyproject.toml"))[0]
    assert {library: pinned[library] for library in VERSIONS} == VERSIONS
    assert {one.library for one in PATCHES} == set(VERSIONS)


def test_the_documentation_lists_them() -> None:
    text = (ROOT / "docs" / "library-patches.md").read_text(encoding="utf-8")
    assert patches_table() in text, f"put this there:\n\n{patches_table()}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_else_reaches_into_a_library(path: Path) -> None:
    known = "\n".join(one.code for one in PATCHES if path.is_relative_to(one.file))
    found = [words for words in reaching(path) if words not in known and words not in PUBLIC]
    assert not found, f"List these in tests/contracts/patches, with a test of the library's side: {found}"


def reaching(path: Path) -> Iterator[str]:
    """What in this file uses a private name that isn't its own, or puts something into a library's module or
    class: as it is written there."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    foreign = libraries_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            of = ast.unparse(node.value)
            if of not in ("self", "cls") and node.attr not in own_names():
                yield f"{of}.{node.attr}"
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Attribute) and root_of(target) in foreign:
                yield f"{ast.unparse(target)} = "
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "setattr"
            and root_of(node.args[0]) in foreign
        ):
            yield ast.unparse(node)


def root_of(node: ast.AST) -> str:
    """The name that a chain of attributes begins with; empty where it begins with none."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def libraries_names(tree: ast.Module) -> set[str]:
    """What this module imports of libraries that are neither ours nor Python's."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(one.name, one.asname or one.name.partition(".")[0]) for one in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "", one.asname or one.name) for one in node.names]
        else:
            continue
        found |= {name for module, name in names if is_librarys(module)}
    return found


def is_librarys(module: str) -> bool:
    top = module.partition(".")[0]
    return top not in OURS and top not in sys.stdlib_module_names


@cache
def own_names() -> frozenset[str]:
    """The private names that our own classes and modules have."""
    found = set[str]()
    for path in FILES:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if ast.unparse(node.value) == "self":
                    found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return frozenset(found - NOT_OURS)


NOT_OURS = {"_queue", "_id", "_data"}
"""Private names of libraries that a class of ours has too: reading them of others is looked at all the
same."""
