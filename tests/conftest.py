"""What the tests share: one real server on the embedded model, as a process of its own, and its client."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx
import pytest

from tests import ROOT
from tests.clients import newest_clients  # noqa: F401  # a fixture of every test folder, as is this one:
from tests.inside.sitecustomize import EVENT_LOOPS, SCRIPTED
from tests.support import kinds, programs
from tests.support.services.node import node  # noqa: F401
from tests.support.steps import Steps

# torch and gradio are imported by what needs them: xdist's first process, which runs no test, does without.
if TYPE_CHECKING:
    from gradio_client import Client

    from jobs.queue import Queue
    from pipeline.engine import Engine
    from tests.support.services.provider import Far

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So a shell starts what runs in the background, and so would begin what the tests start: deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


FIRST = (
    *("ui", "settings", "account"),  # what shares a Chromium is not torn apart
    *("test_browser.py", "test_training.py", "test_shutdown.py", "test_python.py", "test_snippets.py"),
    *("test_nginx.py", "test_account.py", "test_fullsize.py", "test_bodies.py", "test_unread.py"),
    *("test_zerogpu_space.py", "test_chaos.py", "test_worker.py", "test_hub_login_attacks.py"),
    *("security", "logins", "sites", "docs", "jobs", "workers", "server", "gradio", "api", "cli", "weights"),
)
"""Files and folders whose tests take the most CPU time, so that the processes end at about the same time."""
LAST = ("test_event_loops.py", "test_event_loop.py")
"""Files whose tests make all that follows in their process slower: Python's audit hooks stay."""
GUARD = kinds.Guard()
gc.disable()  # until all is imported, as app.py does: a fifth of that time, and there is nothing to collect


def pytest_configure(config: pytest.Config) -> None:
    for kind, words in kinds.KINDS.items():
        config.addinivalue_line("markers", f"{kind}: {words}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    programs.fork_test_processes()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    kinds.mark(items)

    places = {name: place for place, name in enumerate(FIRST)}

    def place(item: pytest.Item) -> int:
        if item.path.name in LAST:
            return len(FIRST) + 1
        return min(places.get(name, len(FIRST)) for name in (item.path.name, item.path.parent.name))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # half a million objects of the libraries, which no collection need look at again
    gc.set_threshold(20_000, 20, 20)  # as often as Python has it, a sixth of the tests' time went there
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    GUARD.begin(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    result = yield
    GUARD.end()
    return result


def share_contexts() -> None:
    """Gives all clients of this process that trust whom everyone does one TLS context. httpx and httpx2 make
    one for each client, and read a hundred certificates for it, in 25 ms of CPU."""
    create = ssl.create_default_context
    trusting = functools.cache(lambda trusted: create(**dict(trusted)))

    def of_httpx(*purpose: Any, **options: Any) -> ssl.SSLContext:
        # As its `create_ssl_context` has it: certifi's file, or what SSL_CERT_FILE or SSL_CERT_DIR names.
        if not purpose and len(options) == 1 and options.keys() <= {"cafile", "capath"}:
            return trusting(tuple(options.items()))
        return create(*purpose, **options)

    default = httpcore2.default_ssl_context
    by_environment = functools.cache(lambda trusts, *_: default(_trust_env=trusts))

    def of_httpx2(*, _trust_env: bool = True) -> ssl.SSLContext:
        return by_environment(_trust_env, *map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))

    ssl.create_default_context = of_httpx  # type: ignore[assignment]
    httpcore2.default_ssl_context = of_httpx2


share_contexts()
STARTED = 600.0
"""Seconds in which a server must have started: ten on an idle machine, minutes on a busy one."""
STEPS: dict[str, Steps] = {}
"""Of each server that `running` runs, by its address."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serve(folder: Path, *script: str, port: int | None = None, **settings: str) -> Iterator[str]:
    """Runs `python app.py` as an owner would, with these environment variables; gives its address.

    Args:
        folder: for its log and its jobs.
        script: what to run instead of app.py.
        port: where it listens; None: a free one.
    """
    with running(folder, *script, port=port, **settings) as (url, _):
        yield url


@contextlib.contextmanager
def running(
    folder: Path,
    *script: str,
    port: int | None = None,
    start: programs.Start = programs.start,
    **settings: str,
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """As `serve`, with the process, for a test that ends it. Its drawings can be held by STEPS. Where one of
    its event loops waited for a disk, that is an error when it has ended.

    Args:
        start: subprocess.Popen, where the start itself is what is tested.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    log, steps, waited = folder / "server.log", Steps(folder / "steps"), folder / "event-loops"
    STEPS[url] = steps
    environment = {
        **{name: value for name, value in os.environ.items() if name != "HF_TOKEN"},
        "GRADIO_SERVER_PORT": str(port),
        "STEPWISE_DATA": str(folder / "data"),
        "HF_HUB_OFFLINE": "1",
        EVENT_LOOPS: str(waited),
        **steps.environment,
        **settings,
    }
    with log.open("w") as output, httpx.Client(timeout=5) as visitor:
        command = [sys.executable, *(script or ("app.py",))]
        process = start(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + STARTED
            while True:
                assert process.poll() is None, f"the server ended:\n{log.read_text()}"
                assert time.monotonic() < deadline, f"the server isn't ready:\n{log.read_text()}"
                with contextlib.suppress(httpx.TransportError):
                    if visitor.get(url).status_code == 200:
                        break
                time.sleep(0.1)
            yield url, process
        finally:
            steps.go_on()
            process.terminate()
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    assert not waited.exists(), waited.read_text(encoding="utf-8")


# Every test calls from the same address, and so is the same person. What a failed test leaves behind isn't
# drawn to its end.
SHARED = {"STEPWISE_MAX_WAITING_EACH": "50", "STEPWISE_GRACE": "1"}


@pytest.fixture(scope="session")
def scripted_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one app that the whole session shares, for which a script draws."""
    with serve(tmp_path_factory.mktemp("scripted"), **SHARED, **SCRIPTED) as url:
        yield url


@pytest.fixture(scope="session")
def sketch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one app that the whole session shares, which draws with the embedded model."""
    with serve(tmp_path_factory.mktemp("sketch"), **SHARED) as url:
        yield url


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    """The address of an app that the whole session shares. A script draws for it, but where a test is marked
    with `sketch`: that one goes from end to end."""
    drawn = request.node.get_closest_marker("sketch") is not None
    return request.getfixturevalue("sketch_server" if drawn else "scripted_server")


@pytest.fixture(scope="session")
def far_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """One app that the whole session shares, whose models a stand-in for an Inference Provider draws."""
    from tests.support.services.provider import FakeProvider, Far
    from tests.support.tiny import models_yaml

    folder = tmp_path_factory.mktemp("far")
    with FakeProvider(folder) as provider:
        auto = provider.entry("auto", provider="auto", source="someone/else")
        models = models_yaml(folder, provider.entry(about="Drawn far away."), auto)
        # Every test calls from the same address: one person, who may have as many drawn as there are places.
        settings = provider.environment | {"STEPWISE_MODELS": str(models), "STEPWISE_RUNNING_EACH": "4"}
        with serve(folder, **settings) as url:
            yield Far(url, provider, folder / "server.log")


@pytest.fixture
def far(far_server: Far) -> Far:
    """That app, its stand-in as at the start."""
    far_server.provider.reset()
    return far_server


@pytest.fixture
def steps(server: str) -> Iterator[Steps]:
    """The steps of that server's drawings."""
    yield STEPS[server]
    STEPS[server].go_on()


@pytest.fixture
def steps_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """The steps of what is drawn in this process."""
    steps = Steps(tmp_path / "steps").here(monkeypatch)
    yield steps
    steps.go_on()


@pytest.fixture
def client(server: str) -> Client:
    from gradio_client import Client

    return Client(server, verbose=False)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """One engine in this process over the repository's models.yaml; sketch is loaded by its first drawing."""
    from pipeline.catalog.catalogue import read_catalogue
    from pipeline.engine import Engine

    return Engine(read_catalogue(ROOT / "models.yaml"))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SD3 model; copy it before changing it."""
    from tests.support.tiny import tiny_sd3

    return tiny_sd3(tmp_path_factory.mktemp("tiny") / "sd3")


@pytest.fixture
def tiny(tiny_folder: Path, tmp_path: Path) -> Engine:
    """An engine of its own over that model alone, as `tiny`, with nothing loaded yet."""
    from pipeline.engine import Engine
    from tests.support.tiny import catalogue, entry

    return Engine(catalogue(tmp_path, entry(tiny_folder)))


@pytest.fixture
def tiny_queue(tiny: Engine, tmp_path: Path) -> Iterator[Queue]:
    """A queue of its own in front of that engine."""
    from tests.support.queues import queued

    with queued(tiny, tmp_path) as queue:
        yield queue
