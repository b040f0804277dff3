"""Every code block of the documentation runs as printed, against a live server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.snippets import Snippet, run, snippets
from tests.node import Node
from tests.tiny import ROOT

PAGES = ["README.md", *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md"))]
SNIPPETS = list(snippets(*PAGES))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)
def test_a_code_block_runs_as_printed(snippet: Snippet, server: str, node: Node, tmp_path: Path) -> None:
    ended = run(snippet, server, tmp_path, node)
    assert ended.returncode == 0, f"{snippet.name}:\n{ended.stdout}\n{ended.stderr}"


def test_each_client_has_a_code_block_that_runs() -> None:
    code = {language: "\n".join(one.code for one in SNIPPETS if one.language == language) for language in
            ("python", "js", "sh")}  # fmt: skip
    for language, client in [
        ("python", "gradio_client"),
        ("python", "openai"),
        ("python", "mcp"),
        ("js", "@gradio/client"),
        ("js", "openai"),
        ("sh", "/gradio_api/call/v2/generate"),
        ("sh", "/v1/images/generations"),
        ("sh", "./stepwise draw"),
    ]:
        assert client in code[language], f"no {language} block uses {client}"
