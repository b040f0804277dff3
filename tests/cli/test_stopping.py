"""Ctrl-C and SIGTERM stop a drawing within one step and leave no file; a server that goes away is said."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from diffusers import SD3Transformer2DModel
from gradio_client import Client

from cli.__main__ import parser
from cli.draw import draw
from cli.errors import Interrupted
from cli.terminal import listen
from pipeline.run import Drawing
from tests.cli.command import CLI, LONG, SMALL, Terminal, events, files, run, start
from tests.support.steps import Steps
from tests.support.tiny import hold


def test_control_c_in_a_terminal_stops_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    steps = Steps(tmp_path / "held" / "steps")
    steps.hold(1)
    folder = tmp_path / "pictures"
    folder.mkdir()
    command = [*CLI, "draw", "a fox", *LONG, "-o", "fox.png"]
    with Terminal(folder, command, **steps.environment) as terminal:
        terminal.read(until=" left")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    assert "drawn" not in terminal.shown
    assert files(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_step_lets_that_step_end_and_starts_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """In this process, whose third step is held until the signal has come."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    gate = hold(monkeypatch, SD3Transformer2DModel, "forward", call=3)

    told, stop = threading.Event(), Drawing.stop

    def stopped(drawing: Drawing) -> None:
        stop(drawing)
        told.set()

    monkeypatch.setattr(Drawing, "stop", stopped)

    def interrupt() -> None:
        gate.wait()
        os.kill(os.getpid(), number)
        told.wait(60)  # a busy main thread hears the signal later than the next step would begin
        gate.open()

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        listen()
        with pytest.raises(Interrupted) as ended:
            draw(parser().parse_args(["draw", "a fox", *SMALL, "--steps", "60", "--json"]))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert ended.value.status == 128 + number
    assert gate.calls == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert '"phase": "stopped"' in last
    assert '"files": []' in last
    assert files(tmp_path) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_job_of_another_stepwise(
    server: str, tmp_path: Path, number: signal.Signals, code: int, steps: Steps
) -> None:
    steps.hold(1)
    process = start(tmp_path, "draw", "a fox", *LONG, "--server", server, "--json")
    come = events(process)
    job = next(event["job"] for event in come if event["step"])
    process.send_signal(number)
    *_, last = come
    assert (last["phase"], last["job"], last["files"]) == ("stopped", job, [])
    assert last["step"] < 60
    assert process.wait(60) == code
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert files(tmp_path) == []
    assert Client(server, verbose=False).predict(job, api_name="/stop")["phase"] == "stopped"


def test_who_waits_in_the_line_leaves_it_on_control_c(server: str, tmp_path: Path, steps: Steps) -> None:
    steps.hold(1)
    first = start(tmp_path, "draw", "a fox", *LONG, "--server", server, "--json")
    next(events(first))
    second = start(tmp_path, "draw", "a cat", *LONG, "--server", server, "--json")
    come = events(second)
    assert next(event for event in come if event.get("position"))["phase"] == "queued"
    second.send_signal(signal.SIGINT)
    assert [event["phase"] for event in come][-1] == "stopped"
    assert second.wait(60) == 130
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130


def test_a_job_that_someone_else_stops_is_a_failure(server: str, tmp_path: Path, steps: Steps) -> None:
    steps.hold(1)
    process = start(tmp_path, "draw", "a fox", *LONG, "--server", server, "--json")
    job = next(event["job"] for event in events(process) if event["step"])
    Client(server, verbose=False).predict(job, api_name="/stop")
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words.decode() == "stepwise: The drawing was stopped by someone else.\n"
    assert files(tmp_path) == []


@contextlib.contextmanager
def relay(server: str) -> Iterator[tuple[str, Any]]:
    """An address in front of the server, and a function that cuts all that goes through it, as the server's
    death (a FIN) or its machine's (a reset) would."""
    address = urlsplit(server)
    door, ends = socket.create_server(("127.0.0.1", 0)), []

    def copy(here: socket.socket, there: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := here.recv(65536):
                there.sendall(data)
        with contextlib.suppress(OSError):
            there.shutdown(socket.SHUT_WR)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = door.accept()
                behind = socket.create_connection((address.hostname, address.port))
                ends.append(client)
                for pair in ((client, behind), (behind, client)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    def cut(reset: bool) -> None:
        door.close()
        for client in ends:
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}", cut
    finally:
        door.close()


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_goes_away_in_mid_drawing_is_said_and_not_waited_for(
    server: str, tmp_path: Path, reset: bool, steps: Steps
) -> None:
    steps.hold(1)
    with relay(server) as (address, cut):
        process = start(tmp_path, "draw", "a fox", *LONG, "--server", address, "--json")
        job = next(event["job"] for event in events(process) if event["step"])
        cut(reset)
        last, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words.decode().startswith(f"stepwise: {address} went away in the middle of the drawing")
    assert len(words.splitlines()) == 1
    assert b'"error"' in last.splitlines()[-1]
    assert files(tmp_path) == []
    Client(server, verbose=False).predict(job, api_name="/stop")


def test_a_signal_that_the_shell_has_ignored_stays_ignored(server: str, tmp_path: Path, steps: Steps) -> None:
    """As for `stepwise draw … &` in a script: Ctrl-C is for the command in front."""
    steps.hold(1)
    in_background = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *CLI]
    process = start(tmp_path, "draw", "a fox", *SMALL, "--server", server, "--json", command=in_background)
    come = events(process)
    next(come)
    process.send_signal(signal.SIGINT)
    steps.go_on()
    assert [event["phase"] for event in come][-1] == "finished"
    assert process.wait(60) == 0


ENDLESS = """
import threading
import cli.draw
from cli.__main__ import run

class Endless:
    def start(self, values): return self
    def stop(self): pass
    def events(self):
        yield {"phase": "denoising", "steps": 4}, ()
        threading.Event().wait()

cli.draw.source = lambda server: Endless()
run()
"""


def test_a_second_control_c_ends_at_once(tmp_path: Path) -> None:
    """A fake engine stands in for one in a step that never ends."""
    with Terminal(
        tmp_path, [sys.executable, "-c", ENDLESS, "draw", "a fox", *SMALL, "-o", "fox.png"]
    ) as terminal:
        terminal.read(until="step 0 of 4")
        terminal.type("\x03")
        terminal.read(until="stopping")
        terminal.type("\x03")
        assert terminal.end() == 130
    assert "Traceback" not in terminal.shown
    assert files(tmp_path) == []


def test_an_address_where_nobody_listens_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    ended = run(tmp_path, "draw", "a fox", "--server", address)
    assert ended.returncode == 1
    assert ended.stderr.decode().startswith(f"stepwise: {address} can't be reached: ")
