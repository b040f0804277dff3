"""What is left when the server ends: nothing that a visitor made."""

from __future__ import annotations

from pathlib import Path

from gradio_client import Client

from tests.conftest import serve


def test_ending_the_server_deletes_the_pictures_it_served(tmp_path: Path) -> None:
    with serve(tmp_path) as url:
        Client(url, verbose=False).predict("a fox", steps=2, api_name="/generate")
        files = [path for path in (tmp_path / "gradio").rglob("*") if path.is_file()]
        assert any(path.suffix == ".png" for path in files)
    assert [path for path in (tmp_path / "gradio").rglob("*") if path.is_file()] == []
