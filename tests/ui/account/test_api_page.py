"""The API page's snippets run as they stand, in every language that it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.services.node import Node
from tests.ui.studio import Studio

TIMEOUT = 120
EACH = """
import runpy, sys
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="__main__")
    print(chr(0))
"""
"""Runs Python files as programs, one after the other in one process: what they import takes longer than what
they do."""


@pytest.fixture(scope="module")
def snippets(shared_tab: Studio) -> Callable[[str], dict[str, str]]:
    """The snippets of one of the page's languages, by endpoint."""
    shared_tab.allow("404 \\(Not Found\\)", reason="the page looks for Gradio's own MCP server, which is off")
    page = shared_tab.page
    page.get_by_role("button", name="Use via API").click()

    def shown(language: str) -> dict[str, str]:
        page.get_by_role("listitem").filter(has_text=language).click()
        expect(page.locator("pre:visible").nth(3)).to_be_visible()  # how to install it, and three endpoints
        texts = [text.inner_text() for text in page.locator("pre:visible").all()]
        return {
            endpoint: next(text for text in texts if endpoint in text)
            for endpoint in ("/generate", "/models", "/stop")
        }

    return shown


def printed(command: list[str], folder: Path) -> str:
    # The scripts that the requirements bring along: gradio.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def check(outputs: dict[str, str]) -> None:
    assert "finished" in outputs["/generate"]
    assert "a red apple" in outputs["/generate"]
    assert "sd3.5-large-turbo" in outputs["/models"]
    assert "unknown" in outputs["/stop"]  # its example is no job's id


def test_the_python_snippets_run(snippets: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    shown = snippets("Python")
    paths = [tmp_path / f"{number}.py" for number in range(len(shown))]
    for path, snippet in zip(paths, shown.values()):
        path.write_text(snippet, encoding="utf-8")
    outputs = printed([sys.executable, "-c", EACH, *map(str, paths)], tmp_path).split("\0\n")
    check(dict(zip(shown, outputs)))


def test_the_javascript_snippets_run(
    snippets: Callable[[str], dict[str, str]], node: Node, tmp_path: Path
) -> None:
    check({endpoint: node.run(snippet, tmp_path) for endpoint, snippet in snippets("JavaScript").items()})


def test_the_curl_snippets_run_in_bash_and_sh(
    snippets: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    shown = snippets("cURL")
    check({endpoint: printed(["bash", "-euc", snippet], tmp_path) for endpoint, snippet in shown.items()})
    assert "unknown" in printed(["sh", "-euc", shown["/stop"]], tmp_path)


def test_the_command_line_snippet_runs(snippets: Callable[[str], dict[str, str]], tmp_path: Path) -> None:
    command = snippets("CLI")["/generate"]
    assert command.startswith("gradio predict ")
    assert "finished" in printed(["bash", "-euc", command], tmp_path)
