"""`models`, `serve`, and how the command line starts: from anywhere, quickly, or in words why not."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from gradio_client import Client

import app
from cli.local import Local
from cli.remote import is_space
from pipeline import __version__
from tests.cli.command import CLI, SMALL, answering, environment, run
from tests.conftest import free_port
from tests.support import programs
from tests.support.tiny import ROOT


def test_models_is_a_table_that_marks_the_default_and_says_why_not(server: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "models", "--server", server)
    assert (ended.returncode, ended.stderr) == (0, b"")
    table, *reasons = ended.stdout.decode().split("\n\n")
    title, *rows = table.splitlines()
    assert title.split() == ["id", "name", "steps", "guidance", "size", "runs"]
    for model in Client(server, verbose=False).predict(api_name="/models"):
        (row,) = [row for row in rows if f" {model['id']} " in row]
        assert row.startswith("*") == model["default"]
        assert row.endswith("yes" if model["available"] else "no")
        said = [reason for reason in reasons if reason.startswith(f"{model['id']} can't run: ")]
        assert bool(said) != model["available"]


def test_models_as_json_is_the_apis_own_list(server: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "models", "--server", server, "--json")
    assert json.loads(ended.stdout) == Client(server, verbose=False).predict(api_name="/models")


def test_this_machines_models_are_those_of_its_models_yaml(server: str) -> None:
    def lasting(models: list[dict]) -> list[dict]:
        """Without what may change from one call to the other: what is free of the disk, and a preload."""
        free = re.compile(r"[\d.]+ GB are free")
        return [one | {"reason": free.sub("", one["reason"] or ""), "coming": None} for one in models]

    theirs = Client(server, verbose=False).predict(api_name="/models")
    assert lasting(Local().models()) == lasting(theirs)


def test_serve_answers_on_its_port_and_ends_on_sigterm(tmp_path: Path) -> None:
    port = free_port()
    with programs.start(
        [*CLI, "serve", "--host", "127.0.0.1", "--port", str(port)],
        cwd=tmp_path,
        env=environment(GRADIO_TEMP_DIR=str(tmp_path / "gradio"), STEPWISE_DATA=str(tmp_path / "data")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        shown = b""
        while b"127.0.0.1:" not in shown:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            shown += line
        assert f"http://127.0.0.1:{port}".encode() in shown
        drawn = run(
            tmp_path, "draw", "a fox", *SMALL, "--server", f"http://127.0.0.1:{port}", "-o", "fox.png"
        )
        assert drawn.returncode == 0, drawn.stderr
        taken = run(tmp_path, "serve", "--port", str(port))
        assert taken.returncode == 2
        assert f"Can't listen on port {port} of 127.0.0.1: " in taken.stderr.decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()
    assert [path for path in (tmp_path / "gradio").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("command", [[], ["draw"], ["models"], ["serve"]])
def test_help_is_short_and_imports_nothing_slow(tmp_path: Path, command: list[str]) -> None:
    code = (
        "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "from cli.__main__ import main; main(sys.argv[1:])"
    )
    ended = run(tmp_path, *command, "--help", command=[sys.executable, "-c", code])
    assert ended.returncode == 0
    assert ended.stdout.decode().startswith(" ".join(["usage: stepwise", *command]))
    assert len(ended.stdout.splitlines()) <= 45
    slow = {"torch", "gradio", "gradio_client", "pydantic", "PIL", "tqdm", "httpx"}
    assert not slow & set(ended.stderr.decode().split())


def test_the_apps_own_help_stays_true(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["app.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "python app.py" in shown
    assert "serves the page and the API" in shown


def a_house(folder: Path) -> Path:
    """A copy of the project, without a .venv, of links."""
    for name in ("cli", "pipeline", "settings.py"):
        (folder / name).symlink_to(ROOT / name)
    script = folder / "stepwise"
    script.write_bytes((ROOT / "stepwise").read_bytes())
    script.chmod(0o755)
    return script


def test_the_script_runs_with_the_projects_own_python(tmp_path: Path) -> None:
    script = a_house(tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    python.chmod(0o755)
    ended = run(tmp_path, "draw", "a fox", "", command=[sys.executable, str(script)])
    assert ended.stdout.decode().splitlines()[-4:] == [str(script), "draw", "a fox", ""]


def test_the_script_runs_with_the_current_python_where_the_project_has_none(tmp_path: Path) -> None:
    ended = run(Path("/"), "--version", command=[sys.executable, str(a_house(tmp_path))])
    assert (ended.returncode, ended.stdout.decode()) == (0, f"stepwise {__version__}\n")


@pytest.mark.parametrize("words", [("draw", "a fox"), ("models",), ("serve",)])
def test_without_the_packages_it_says_how_to_get_them(tmp_path: Path, words: tuple[str, ...]) -> None:
    """-S: a Python that finds nothing but its own library."""
    ended = run(tmp_path, *words, command=[sys.executable, "-S", str(a_house(tmp_path))])
    assert ended.returncode == 1
    (line,) = ended.stderr.decode().splitlines()
    assert re.match(r"stepwise: The package \w+ is not installed\. Run `make run` once", line)


@pytest.mark.parametrize(("closed", "code"), [("<&-", 0), ("2>&-", 0), (">&-", 1), ("<&- >&- 2>&-", 1)])
def test_closed_streams_are_no_reason_for_a_traceback(
    server: str, tmp_path: Path, closed: str, code: int
) -> None:
    without = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *CLI]
    ended = run(tmp_path, "models", "--server", server, command=without)
    assert ended.returncode == code
    assert ended.stderr == (b"stepwise: Standard output is closed.\n" if closed == ">&-" else b"")


def test_the_token_is_not_shown_to_any_server(tmp_path: Path) -> None:
    token, seen = "hf_" + "x" * 34, []

    class Curious(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(str(self.headers))
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with answering(Curious) as address:
        ended = run(tmp_path, "models", "--server", address, env=environment(HF_TOKEN=token))
    assert ended.returncode == 1
    assert seen
    assert not [headers for headers in seen if token in headers]


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("https://owner-name.hf.space", True),
        ("http://owner-name.hf.space", False),
        ("https://hf.space.example.org", False),
        ("https://owner-name.hf.space@example.org", False),
        ("https://evilhf.space", False),
        ("http://127.0.0.1:7860", False),
    ],
)
def test_the_token_is_shown_to_spaces_alone(server: str, shown: bool) -> None:
    assert is_space(server) == shown
