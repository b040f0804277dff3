"""A server that is told to end does so wherever it is: with 0, without a traceback, its folder free, its job
put back. `python -m bench.signals` goes through many more moments of the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from diffusers import SD3Transformer2DModel

from bench.signals import INT, POLL, SELDOM, TERM, Server, with_job
from jobs.data_dir.folder import DataFolder
from jobs.queue import Queue
from tests.api.openai.openai_server import TINY, openai_server
from tests.api.openai.test_openai_errors import in_shape
from tests.conftest import ROOT
from tests.support import programs
from tests.support.queues import begin
from tests.support.rest import TIMEOUT
from tests.support.tiny import hold

Come = Callable[[Server], bool]


@pytest.mark.parametrize(
    ("come", "signals"),
    [
        pytest.param(Server.importing, [INT], id="while it imports"),
        pytest.param(Server.speaks, [TERM], id="while the page is made"),
        pytest.param(Server.open, [TERM, INT], id="its port has just opened"),
        pytest.param(Server.ready, [INT], id="at rest"),
    ],
)
def test_a_server_ends_in_order_wherever_it_is(
    tmp_path: Path, come: Come, signals: Sequence[signal.Signals]
) -> None:
    # Python itself is started where its imports are what is interrupted.
    server = Server(tmp_path, subprocess.Popen if come is Server.importing else programs.start)
    server.until(lambda: come(server), SELDOM if come is Server.ready else POLL)
    ended = server.end("", signals)
    assert ended.well, ended


def test_a_server_that_is_told_to_end_while_it_draws_ends_in_order_however_often_it_was_restarted(
    tmp_path: Path,
) -> None:
    """Four times, of which none counts as one that the job took down."""
    for come, signals in ((Server.draws, [INT]), (Server.speaks, [TERM, TERM]), (Server.draws, [TERM, INT])):
        with_job(tmp_path / "data")
        server = Server(tmp_path, programs.start)
        server.until(lambda server=server, come=come: come(server), SELDOM)  # type: ignore[misc]
        ended = server.end("", signals)
        assert ended.well, ended
        assert ended.job == ("queued", 0)


def test_who_waits_for_a_drawing_over_v1_when_the_server_ends_is_told_when_to_come_again(
    tiny_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, answers = hold(monkeypatch, SD3Transformer2DModel, "forward"), []
    with openai_server(tiny_queue) as url:
        running = begin(tiny_queue, {"prompt": "a fox", "model": "tiny"})
        gate.wait()
        kept = begin(tiny_queue, {"prompt": "an owl", "model": "tiny"})
        job = str(uuid.uuid4())

        def ask() -> None:
            path = f"{url}/v1/images/generations"
            answers.append(httpx.post(path, json=TINY | {"job": job}, timeout=TIMEOUT))

        asking = threading.Thread(target=ask)
        asking.start()
        while tiny_queue.find(job) is None:
            asking.join(0.01)
        tiny_queue.drain(0)
        asking.join(TIMEOUT)
        (answer,) = answers
        error = in_shape(answer, 503)
        assert (error["type"], error["code"]) == ("server_error", "server_ending")
        assert int(answer.headers["retry-after"]) > 0
        assert "x-should-retry" not in answer.headers
        refused = httpx.post(f"{url}/v1/images/generations", json=TINY, timeout=TIMEOUT)
        assert in_shape(refused, 503)["code"] == "server_ending"
        assert int(refused.headers["retry-after"]) > 0
        assert kept.latest.phase == "queued"  # its client has its id, and comes back with it
        gate.open()
        assert running.result().phase == "finished"


def test_a_second_server_says_at_once_who_has_the_folder_before_it_imports_anything_slow(
    tmp_path: Path,
) -> None:
    first = DataFolder(tmp_path / "data")
    code = "import sys; from api.server.startup import start\ntry: start()\nfinally: print(*sys.modules)"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": "", "STEPWISE_DATA": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as second:
        assert second.stdout is not None and second.stderr is not None
        said = second.stderr.readline()  # it waits still
        assert second.poll() is None
        first.close()
        modules = second.stdout.read().split()
        assert second.wait(TIMEOUT) == 0, second.stderr.read()
    assert f"Another Stepwise uses the folder {tmp_path / 'data'} (process {os.getpid()})" in said
    assert not {"torch", "gradio", "diffusers"} & set(modules)


CLOSES = """
import os, signal, sys, time
import api.server.shutdown

class Queue:
    def running(self): return 0
    def drain(self, grace, now): print("drained", flush=True); return False
    def close(self, patience): print("closed", flush=True); HANGS and time.sleep(600)

HANGS = sys.argv[1] == "hangs"
api.server.shutdown.CLEANUP_TIME = 0.1 if HANGS else 600
shutdown = api.server.shutdown.Shutdown()
shutdown.listen()
shutdown.require_cleanup()
with shutdown.closing(Queue(), 0):
    exec(sys.argv[2])
"""


def closes(block: str, hangs: bool = False) -> subprocess.CompletedProcess[str]:
    """What becomes of a process after this block. The queue is a stand-in: the ending is looked at."""
    how = [sys.executable, "-c", CLOSES, "hangs" if hangs else "", block]
    return subprocess.run(how, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_what_fails_while_it_starts_is_told_and_all_is_closed() -> None:
    failed = closes("1 / 0")
    assert (failed.returncode, failed.stdout) == (1, "closed\n")
    assert "ZeroDivisionError" in failed.stderr
    left = closes("sys.exit('Port 80 is taken.')")
    assert (left.returncode, left.stdout, left.stderr) == (1, "closed\n", "Port 80 is taken.\n")


def test_a_signal_is_noted_and_raises_nothing_where_it_comes() -> None:
    kill = "os.kill(os.getpid(), signal.SIGINT)"
    ended = closes(
        f"class Deleted:\n def __del__(self): {kill}\nDeleted()\nprint(shutdown.immediate)\nshutdown.wait()"
    )
    assert ended.stdout == "True\nTold to end.\ndrained\nclosed\n"
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_end_that_hangs_is_cut_and_says_so() -> None:
    ended = closes("shutdown.requested = True", hangs=True)
    assert ended.returncode == 1
    assert "didn't come to its end" in ended.stdout
