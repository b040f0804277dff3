"""What is left when the server ends: nothing that a visitor made."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
from gradio_client import Client

from tests.conftest import serve
from tests.mcp import ACCEPT, initialize


def test_ending_the_server_deletes_the_pictures_it_served_whoever_still_listens(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        # An owner's environment may switch Gradio's own MCP server on, with a tool for every endpoint.
        with serve(tmp_path, GRADIO_MCP_SERVER="True") as url:
            assert httpx.get(f"{url}/gradio_api/mcp/").status_code == 404
            Client(url, verbose=False).predict("a fox", steps=2, api_name="/generate")
            files = [path for path in (tmp_path / "gradio").rglob("*") if path.is_file()]
            assert any(path.suffix == ".png" for path in files)
            session = {"Accept": ACCEPT, "Mcp-Session-Id": initialize(url).headers["mcp-session-id"]}
            stream = httpx.stream("GET", f"{url}/mcp", headers=session, timeout=60)
            assert stack.enter_context(stream).status_code == 200
        assert [path for path in (tmp_path / "gradio").rglob("*") if path.is_file()] == []
    assert "Traceback" not in (tmp_path / "server.log").read_text()
