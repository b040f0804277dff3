"""Every code block of the documentation runs as printed, against a live server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.clients import PAGES, Client, NewestClients, newer
from tests.docs.support.snippets import Programs, Snippet, run, snippets
from tests.support.services.node import Node

SNIPPETS = list(snippets(*PAGES))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.name)
def test_a_code_block_runs_as_printed(
    snippet: Snippet, server: str, models: Path, node: Node, tmp_path: Path
) -> None:
    programs = Programs(Path(sys.executable), node.modules)
    ended = run(snippet, server, tmp_path, programs, STEPWISE_MODELS=str(models))
    assert ended.returncode == 0, f"{snippet.name}:\n{ended.stdout}\n{ended.stderr}"


NEWER = [(client, snippet) for client in newer() for snippet in client.examples()]


@pytest.mark.parametrize(
    "client, snippet", NEWER, ids=[f"{client.name} {snippet.name}" for client, snippet in NEWER]
)
def test_a_code_block_runs_with_the_newest_client_known(
    client: Client, snippet: Snippet, server: str, newest_clients: NewestClients, tmp_path: Path
) -> None:
    ended = run(snippet, server, tmp_path, newest_clients(client))
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
