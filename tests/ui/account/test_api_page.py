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


@pytest.fixture
def snippets(tab: Studio) -> Callable[[str], dict[str, str]]:
    """The snippets of one of the page's languages, by endpoint."""
    tab.allow("404 \\(Not Found\\)", reason="the page looks for Gradio's own MCP server, which is off")
    page = tab.page
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
    shown = snippets("Python").items()
    check({endpoint: printed([sys.executable, "-c", snippet], tmp_path) for endpoint, snippet in shown})


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
