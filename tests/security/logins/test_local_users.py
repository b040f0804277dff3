"""A second account of the machine reads nothing that a server keeps, and learns nothing of it from processes
and logs.

As root, such an account really tries (a fork that has become it); otherwise what it left behind is made by
this one, and the rest is skipped.
"""

from __future__ import annotations

import contextlib
import os
import threading
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError, ValidationError

from jobs.queue import Queue
from jobs.store.models import Choice, Owner
from jobs.store.sqlite import SqliteStore
from jobs.workers.messages import EventDelta, RunJob
from jobs.workers.worker import Worker
from pipeline.events import Event
from pipeline.request import Job
from pipeline.run import Cancel, Emit
from tests.conftest import running
from tests.security.support.accounts import ID, JOB, PROMPT, as_stranger, mode, needs_root, older, open_ones
from tests.support.queues import begin
from tests.support.rest import TIMEOUT
from tests.support.steps import Steps
from tests.support.tiny import SMALL

# A server that another account looks at.


def child_of(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def opened(process: int) -> set[str]:
    """What a process has open, but for its standard streams."""
    found = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(link.name) > 2:
                found.add(str(link.readlink()))
    return found


@needs_root
def test_another_account_gets_nothing_from_a_server_that_draws(place: Path) -> None:
    data, key, token = older(place / "data", 0o000), "a-key-0123456789", "hf_no0123456789"
    umask = "import os, sys; os.umask(0); os.execv(sys.executable, [sys.executable, 'app.py'])"
    settings = {"STEPWISE_API_KEYS": key, "HF_TOKEN": token, "STEPWISE_WORKERS": "1"}
    with running(place, "-c", umask, **settings) as (url, server):
        asked = {"prompt": PROMPT, "size": "128x128", "steps": 2, "response_format": "url"}
        answer = httpx.post(
            f"{url}/v1/images/generations",
            json=asked,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT,
        )
        assert answer.status_code == 200, answer.text
        job = answer.headers["x-request-id"]
        client = Client(url, verbose=False)
        for wrong in ({"prompt": PROMPT * 2000}, {"prompt": PROMPT, "steps": -1}):
            with pytest.raises((AppError, ValidationError)):
                client.predict(**SMALL | wrong, api_name="/generate")
        assert client.predict(job, api_name="/stop")
        assert open_ones(data) == [] and mode(data) == 0o700
        there = [data, *data.rglob("*")]
        assert any(path.name.endswith(".1.events") for path in there)
        for path in there:
            assert job not in path.name
            assert as_stranger(lambda path=path: path.chmod(0o777)) == "PermissionError"  # type: ignore[misc]
            look = os.listdir if path.is_dir() else lambda path: os.open(path, os.O_RDONLY)
            assert as_stranger(lambda path=path, look=look: look(path)) == "PermissionError"  # type: ignore[misc]
        (worker,) = child_of(server.pid)
        for process in (server.pid, worker):
            shown = as_stranger(lambda process=process: Path(f"/proc/{process}/cmdline").read_bytes())  # type: ignore[misc]
            assert "python" in shown
            for secret in (key, token, PROMPT, job, job[:8]):
                assert secret not in shown
            for closed in ("environ", "fd", "maps", "mem", "cwd"):
                path = Path(f"/proc/{process}/{closed}")
                look = os.listdir if closed == "fd" else os.readlink if closed == "cwd" else Path.read_bytes
                assert as_stranger(lambda path=path, look=look: look(path)) == "PermissionError"  # type: ignore[misc]
        assert_worker_has_one_nameless_socket(server.pid, worker, data)
        known = Path(f"/proc/{worker}/environ").read_text()
        assert token in known and key not in known  # it may fetch weights, and lets nobody in
    log = (place / "server.log").read_text()
    assert "could look into" in log and job[:8] in log
    assert job not in log and PROMPT not in log and key not in log and token not in log


def assert_worker_has_one_nameless_socket(server: int, worker: int, data: Path) -> None:
    """Of what the server has open, the worker has nothing; and none of their sockets has a name by which
    somebody could come in, but for the web server's own port."""
    ours, its = opened(server), opened(worker)
    sockets = {one for one in its if one.startswith("socket:")}
    assert sockets and not sockets & ours
    assert not [one for one in its if one.startswith(str(data))]
    named = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    inodes = {f"socket:[{fields[6]}]" for fields in named if len(fields) > 7}
    assert not inodes & (ours | its)
    listening = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A"
    }
    assert len(listening & ours) == 1 and not listening & its


# Logs.


def test_no_threads_name_has_a_jobs_key_in_it(tiny_queue: Queue, steps_here: Steps) -> None:
    """A thread's name is printed with what it dies of, and shown by whatever looks at a process."""
    steps_here.hold(1)
    following = begin(tiny_queue, {"model": "tiny", "prompt": PROMPT, "steps": 2})
    job = following.job.id
    next(event for event in following.events() if event.step == 1)
    names = [thread.name for thread in threading.enumerate()]
    steps_here.go_on()
    assert not any(job in name for name in names)


def test_a_workers_threads_have_no_jobs_key_in_their_names() -> None:
    ours, its = Pipe()
    names: list[str] = []

    def run(job: Job, emit: Emit, _: Cancel) -> Event:
        names.extend(thread.name for thread in threading.enumerate())
        emit(last := Event(job, "finished"))
        return last

    engine = SimpleNamespace(run=run, ready_models=tuple, executors={})
    threading.Thread(target=serve_until_closed, args=(engine, its), daemon=True).start()
    ours.recv()
    ours.send(RunJob(JOB))
    while not isinstance(told := ours.recv(), EventDelta) or told.changes.get("phase") != "finished":
        pass  # all of it: a worker whose pipe is closed ends its process
    assert names and not any(ID in name for name in names)
    ours.close()


def serve_until_closed(engine: SimpleNamespace, connection: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        Worker(engine, connection).serve()  # type: ignore[arg-type]


def test_a_policy_that_chooses_a_job_which_doesnt_wait_is_told_without_its_key(tmp_path: Path) -> None:
    """The dispatch logs it with its traceback."""
    store = SqliteStore(tmp_path / "jobs.sqlite")
    store.add(JOB, "line", Owner("address:192.0.2.1", "session"), "detached", 9, 9)
    other = ID.replace("1", "9")
    with pytest.raises(ValueError, match="doesn't wait") as raised:
        store.claim("line", lambda *_: Choice(other))
    assert other not in str(raised.value) and other[:8] in str(raised.value)
    store.close()
