"""What makes the tests quick leaves them what they are: a forked program does what a started one does, and a
test that needs a process, a browser or a training is known as one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import certifi
import httpx
import psutil
import pytest

from tests import conftest, python_path
from tests.jobs.workers.real_workers import lives, until
from tests.support import programs
from tests.support.kinds import needs
from tests.support.tiny import ROOT

PRINTS = "import os, sys; print(sys.argv, os.getcwd(), os.environ['STEPWISE_GRACE'], __name__, sys.path[0])"


def ended(start: programs.Start, program: Path, *words: str, **options: Any) -> tuple[Any, ...]:
    """What a program leaves: its status, and what it wrote."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "STEPWISE_GRACE": "7", "PYTHONPATH": python_path()}
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, str(program), *words]
    with start(command, env=environment, cwd=program.parent, **pipes, **options) as process:
        written = process.communicate(b"a line\n", timeout=120)
    return process.returncode, *written


@pytest.mark.parametrize(
    "code",
    [
        PRINTS,
        "import sys; print(sys.stdin.readline()); sys.exit('a reason')",
        "import sys; sys.exit(3)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import atexit, os; atexit.register(print, 'at exit'); print(os.getsid(0) == os.getpid())",
        "import sys; print([(one.encoding, one.errors, one.line_buffering, one.write_through)"
        " for one in (sys.stdin, sys.stdout, sys.stderr)])",
        "import signal; print([signal.getsignal(one) for one in (2, 13, 15)])",
        "import os; print(sorted(os.listdir('/proc/self/fd'))[:3], os.umask(0))",
    ],
)
def test_a_forked_program_is_as_one_that_python_started(
    tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", [(str(tmp_path / "it.py"),)])
    (tmp_path / "it.py").write_text(code, encoding="utf-8")
    for options in ({}, {"start_new_session": True}):
        found = [
            ended(start, tmp_path / "it.py", "a", "ü", **options) for start in (forked, subprocess.Popen)
        ]
        assert found[0] == found[1]


def forked(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    process = programs.start(command, **options)
    assert isinstance(process, programs.Forked) or not programs.POSSIBLE
    return process


def test_a_forked_module_has_the_folder_safe_path_and_command_line_that_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "workers").mkdir(parents=True)
    code = (
        "import sys; print(sys.path[0], sys.argv[1:], open('/proc/self/cmdline').read().rstrip('\\0'), first)"
    )
    (tmp_path / "jobs" / "workers" / "worker.py").write_text(code, encoding="utf-8")
    (tmp_path / "sitecustomize.py").write_text("import builtins; builtins.first = 1", encoding="utf-8")
    command = [sys.executable, "-m", "jobs.workers.worker", "5"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path(str(tmp_path))}
    for safe in ({}, {"PYTHONSAFEPATH": "1"}):
        said = []
        for start in (forked, subprocess.Popen):
            with start(command, env=environment | safe, cwd=tmp_path, stdout=subprocess.PIPE) as process:
                said.append(process.communicate(timeout=120)[0])
        assert said[0] == said[1] != b""


def test_forked_code_is_as_code_that_python_started(tmp_path: Path) -> None:
    code = "import sys; print(sys.argv, sys.path[0], __name__, sys.stdin.readline()); sys.exit(3)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path()}
    said = []
    for popen in (programs.Forked if programs.POSSIBLE else subprocess.Popen, subprocess.Popen):
        pipes: Any = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        command = [sys.executable, "-c", code, "a word"]
        with popen(command, env=environment, cwd=tmp_path, **pipes) as process:
            said.append((process.communicate(b"a line\n", timeout=120)[0], process.returncode))
    assert said[0] == said[1] and said[0][1] == 3


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="xdist doesn't run this test")
def test_a_process_that_runs_tests_is_a_fork_where_it_can_be_one() -> None:
    assert ("template" in sys.modules) == programs.POSSIBLE


def test_the_worker_of_a_forked_server_is_a_fork_and_its_child_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", [(str(tmp_path / "it.py"),)])
    (tmp_path / "it.py").write_text(
        "import signal, sys\n"
        "from jobs.workers.launch import launch\n"
        "process = launch(0).process\n"
        "print(type(process).__name__, process.pid, flush=True)\n"
        "sys.stdin.read()\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": python_path(str(ROOT))}
    pipes: Any = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    command = [sys.executable, str(tmp_path / "it.py")]
    with forked(command, env=environment | {"STEPWISE_WORKERS": "1"}, cwd=tmp_path, **pipes) as server:
        kind, pid = server.stdout.readline().split()  # type: ignore[union-attr]
        assert kind != b"Popen" or not programs.POSSIBLE
        assert psutil.Process(int(pid)).ppid() == server.pid
        server.kill()
    until(lambda: not lives(int(pid)), 60)


def test_a_forked_program_keeps_gradios_files_where_its_own_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", [(str(tmp_path / "it.py"),)])
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    copies = ("gradio.mcp", "gradio.routes", "gradio.route_utils", "gradio_client.client")
    code = f"import {', '.join(copies)}; print(*({', '.join(f'{one}.DEFAULT_TEMP_DIR' for one in copies)},))"
    (tmp_path / "it.py").write_text(code, encoding="utf-8")
    status, printed, said = ended(forked, tmp_path / "it.py")
    assert (status, said) == (0, b"")
    assert printed.decode().split() == [str(tmp_path / "gradio")] * len(copies)


def test_an_unhandled_interrupt_ends_it_as_the_signal_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PROGRAMS", [(str(tmp_path / "it.py"),)])
    (tmp_path / "it.py").write_text("import os; os.kill(os.getpid(), 2)", encoding="utf-8")
    status, _, said = ended(forked, tmp_path / "it.py")
    assert status == -signal.SIGINT and said.endswith(b"KeyboardInterrupt\n")


def test_where_a_library_would_have_read_another_environment_python_starts_it() -> None:
    as_it_is = {**os.environ, "HF_HUB_OFFLINE": "1"}
    assert programs.would_fork([sys.executable, "app.py"], as_it_is) == programs.POSSIBLE
    for same in ({"GRADIO_TEMP_DIR": "/tmp"}, {"GRADIO_MCP_SERVER": "True"}):
        assert programs.would_fork([sys.executable, "app.py"], as_it_is | same) == programs.POSSIBLE, same
    for other in (
        {"HF_HOME": "/tmp"},
        {"HF_HUB_OFFLINE": "0"},
        {"GRADIO_SERVER_NAME": "0.0.0.0"},
        {"https_proxy": "x"},
    ):
        assert not programs.would_fork([sys.executable, "app.py"], as_it_is | other), other
    assert not programs.would_fork([sys.executable, "-c", "pass"], as_it_is)
    assert not programs.would_fork(["/usr/bin/python3", "app.py"], as_it_is)


@pytest.mark.parametrize("variable", [None, "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_clients_that_trust_the_same_share_what_takes_long_to_read(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        trusted = Path(certifi.where())
        monkeypatch.setenv(variable, str(trusted if variable == "SSL_CERT_FILE" else trusted.parent))
    assert httpx.create_ssl_context() is httpx.create_ssl_context()
    assert httpx.create_ssl_context() is not httpx.create_ssl_context(verify=False)


def test_what_a_test_needs_is_read_off_its_code() -> None:
    def starts(tmp_path: Path) -> None:
        with conftest.serve(tmp_path):
            pass

    def looks(tmp_path: Path) -> None:
        assert tmp_path.exists() and subprocess.PIPE

    assert needs(starts) == {"process"}
    assert needs(looks) == frozenset()


def test_a_process_in_a_test_that_isnt_marked_fails_it_in_words() -> None:
    start = getattr(subprocess, "check" + "_call")  # what reads the code doesn't see
    with pytest.raises(AssertionError, match=r"mark it with @pytest\.mark\.process"):
        start([sys.executable, "-c", "pass"])
    with pytest.raises(AssertionError, match=r"mark it with @pytest\.mark\.process"):
        conftest.GUARD.end()
    conftest.GUARD.forgive()


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = makefile.partition(".PHONY: ")[2].splitlines()[0].split()
    # As by hand, not by the `make` that may run the tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "help"]
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in listed.stdout.splitlines()} == set(named) - {"programs", "python"}
