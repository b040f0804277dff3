"""Every relative link of the documentation leads to a file that is there, and to a heading that it has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docs.support.links import anchors, relative_links
from tests.support.tiny import ROOT

PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "bench/README.md",
    "tests/clients/README.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")),
)


def broken(page: Path) -> list[str]:
    """The page's relative links that lead nowhere."""
    found = []
    for path, anchor in relative_links(page.read_text(encoding="utf-8")):
        target = (page.parent / path).resolve() if path else page
        if not target.is_relative_to(ROOT) or not target.exists():
            found.append(f"{path}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text(encoding="utf-8")):
            found.append(f"{path}#{anchor}: no such heading")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    assert broken(ROOT / page) == []


def test_a_page_is_reached_from_the_readme() -> None:
    seen, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        text = page.read_text(encoding="utf-8")
        waiting += [(page.parent / path).resolve() for path, _ in relative_links(text) if path]
    assert {ROOT / page for page in PAGES} - seen == set()


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.docs.test_links.ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# One `word` (and more)\n\n## Twice\n\n## Twice\n\n```\n# no\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#one-word-and-more) [b](there.md#twice-1) [c](#here) `[d](e)`\n"
        "[f](https://example.org/x#y)\n"
        "# Here\n\n[g](gone.md) [h](there.md#no) [i](../outside.md) ![j](gone.png)\n"
    )
    assert broken(page) == [
        "gone.md: no such file",
        "there.md#no: no such heading",
        "../outside.md: no such file",
        "gone.png: no such file",
    ]


def test_the_readme_is_short() -> None:
    """It opens with one command and its picture; what is more stands in docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


def test_every_file_that_is_linked_is_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    files = {ROOT / name for name in tracked.stdout.split("\0") if name}
    folders = {parent for file in files for parent in file.parents}
    for page in PAGES:
        for path, _ in relative_links((ROOT / page).read_text(encoding="utf-8")):
            target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            assert target in files | folders, f"{page}: {path}"
