"""A drawing survives its page and its server: the tab is reloaded, the server is killed or told to end."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from playwright.sync_api import expect

from tests.conftest import STEPS, free_port, running
from tests.inside.sitecustomize import SCRIPTED
from tests.support.steps import Steps
from tests.ui.studio import SLOW, Studio

CUT = (
    "AbortError|Connection errored out|Unexpected error|Failed to fetch|network error|Failed to load resource"
)
"""What Gradio (6.31) and the browser log where a stream is cut."""


class Host:
    """An address that one server after another listens at, with one folder for their jobs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._stack = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """The next server, if there is none; told to end, it waits for no drawing."""
        if self._process is None or self._process.poll() is not None:
            next_one = running(self._folder, port=self._port, STEPWISE_GRACE="0", **SCRIPTED)
            _, self._process = self._stack.enter_context(next_one)

    def end(self, how: signal.Signals) -> int:
        """Its exit status."""
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(60)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def one_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


@pytest.fixture
def host(one_host: Host) -> Host:
    """With a server."""
    one_host.start()
    return one_host


def begin(tab: Studio, prompt: str = "a red apple", seed: int = 7, steps: int = 8) -> str:
    """Starts a drawing that waits after its second step, waits until that is seen, and gives its job's id."""
    tab.allow(CUT, reason="the test cuts the drawing's stream")
    tab.set(width=128, height=128, steps=steps)
    tab.seed.fill(str(seed))
    STEPS[tab.url].hold(2)
    tab.prompt.fill(prompt)
    tab.draw_button.click()
    tab.wait_for_step(2)
    return tab.job


@pytest.mark.sketch
def test_a_drawing_goes_on_in_a_tab_that_was_reloaded(tab: Studio, steps: Steps) -> None:
    job = begin(tab)
    tab.page.reload()
    expect(tab.stop_button).to_be_visible(timeout=SLOW)
    expect(tab.draw_button).to_be_hidden()
    steps.hold(3)
    tab.wait_for_step(3)
    assert tab.job == job
    expect(tab.prompt).to_have_value("a red apple")
    steps.go_on()
    tab.wait_for("finished")
    assert tab.job == job
    assert (tab.recipe()["seed"], tab.recipe()["steps"]) == (7, 8)
    expect(tab.history).to_have_count(1)
    expect(tab.history).to_have_attribute("title", "a red apple (seed 7)")
    tab.open()  # it has ended: nothing is left to be followed
    expect(tab.draw_button).to_be_visible()
    expect(tab.history).to_have_count(1)
    expect(tab.pictures.first).to_be_hidden()


def test_stop_ends_a_drawing_that_a_reload_found_again(tab: Studio, steps: Steps) -> None:
    begin(tab, steps=60)
    tab.page.reload()
    steps.hold(3)
    tab.wait_for_step(3)
    tab.stop_button.click()
    tab.wait_for("stopped")
    expect(tab.line).to_have_text(re.compile(r"^Stopped · at step \d+/60 · seed 7$"))
    expect(tab.history).to_have_count(1)


def test_a_drawing_that_ended_while_its_page_was_away_is_shown(
    tab: Studio, client: Client, steps: Steps
) -> None:
    job = begin(tab)
    tab.page.goto("about:blank")
    steps.go_on()
    list(client.submit(job, api_name="/job"))
    tab.page.goto(tab.url)
    tab.wait_for("finished")
    assert tab.job == job
    expect(tab.history).to_have_count(1)


def test_a_tab_opened_beside_one_that_draws_has_nothing_of_it(
    tab: Studio, open_tab: Callable[..., Studio], steps: Steps
) -> None:
    begin(tab)
    beside = open_tab(context=tab.page.context)
    expect(beside.draw_button).to_be_visible()
    expect(beside.pictures.first).to_be_hidden()
    expect(beside.prompt).to_have_value("a fox on a blue background")
    tab.stop_button.click()
    tab.wait_for("stopped")


def test_a_drawing_that_never_reached_the_server_is_said_to_be_missing(tab: Studio) -> None:
    left = {"job": str(uuid.uuid4()), "stop": False}
    tab.page.evaluate("left => { window.stepwise.visit.drawing = left; }", left)
    tab.page.reload()
    tab.page.wait_for_function("() => window.stepwise?.visit && window.stepwise.visit.drawing === null")
    expect(tab.draw_button).to_be_visible()
    expect(tab.line).to_have_text("")
    expect(tab.notes).to_contain_text("it didn't reach the server, or is no longer kept. Press Draw")
    tab.make_quick()
    tab.draw("a red apple")
    expect(tab.notes).to_have_text("")


def test_what_is_typed_stays_over_a_reload(tab: Studio) -> None:
    tab.prompt.fill("a rocket to the left")
    tab.page.reload()
    expect(tab.prompt).to_have_value("a rocket to the left", timeout=SLOW)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_an_open_tab_sees_its_drawing_finish_on_the_server_that_follows(
    open_tab: Callable[..., Studio], host: Host, how: signal.Signals
) -> None:
    tab = open_tab(url=host.url)
    tab.make_quick()
    tab.draw("a red apple")
    job = begin(tab, "a snowman", seed=11)
    host.end(how)
    expect(tab.line).to_have_text("Connection lost; looking for the server …", timeout=SLOW)
    expect(tab.stop_button).to_be_visible()
    with tab.page.expect_event("load", timeout=3 * SLOW):  # a server's start included
        host.start()
    STEPS[host.url].go_on()
    tab.wait_for("finished")
    assert tab.job == job
    assert (tab.recipe()["prompt"], tab.recipe()["seed"]) == ("a snowman", 11)
    expect(tab.prompt).to_have_value("a snowman")
    expect(tab.history).to_have_count(2)


def test_stop_pressed_while_the_server_is_away_holds_once_it_is_back(
    open_tab: Callable[..., Studio], host: Host
) -> None:
    tab = open_tab(url=host.url)
    begin(tab, steps=60)
    host.end(signal.SIGKILL)
    expect(tab.line).to_have_text("Connection lost; looking for the server …", timeout=SLOW)
    tab.stop_button.click()
    with tab.page.expect_event("load", timeout=3 * SLOW):  # a server's start included
        host.start()
    tab.wait_for("stopped")
    STEPS[host.url].go_on()
