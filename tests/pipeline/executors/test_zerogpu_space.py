"""On ZeroGPU the same app draws in a worker that `spaces` forks: same pixels, every step, a stop within one,
and every failure in words. `spaces` is real here; the GPU and the API that lends it are stood in for.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from gradio_client import Client
from safetensors.torch import load_file, save_file

from pipeline.devices import hardware
from pipeline.engine import Engine
from tests.conftest import STEPS, serve
from tests.support.mcp import connected
from tests.support.services.zerogpu import FakeZeroGpu
from tests.support.steps import Steps
from tests.support.tiny import catalogue, draw, entry, models_yaml, pixels

APPLE = {"prompt": "a red apple", "model": "tiny", "seed": 7}
VISITOR = f"e30.{base64.urlsafe_b64encode(b'{}').decode()}.signature"
"""What huggingface.co adds to a visitor's requests, in X-IP-Token: a JWT."""
Seen = list[tuple[list[dict[str, Any]], dict[str, Any]]]


class Space:
    """An app on ZeroGPU, the stand-in that lends it a GPU, its visitor, and its drawings' steps."""

    def __init__(self, url: str, api: FakeZeroGpu, lose: Path) -> None:
        self.url, self.api, self.lose = url, api, lose
        self.steps: Steps = STEPS[url]
        self.visitor = Client(url, verbose=False, headers={"X-IP-Token": VISITOR})

    def draw(self, client: Client | None = None, **values: Any) -> Seen:
        """Everything that this request's visitor sees."""
        return list((client or self.visitor).submit(**APPLE | values, api_name="/generate"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Space]:
    folder = tmp_path_factory.mktemp("space")
    broken, empty = folder / "broken", folder / "empty"
    shutil.copytree(tiny_folder, broken)
    file = next((broken / "transformer").glob("*.safetensors"))
    save_file({name: weight * torch.nan for name, weight in load_file(file).items()}, file, {"format": "pt"})
    empty.mkdir()
    lent: dict[str, Any] = {"device": None, "needs": {"transformer": 1}}
    models = models_yaml(
        folder,
        entry(tiny_folder, **lent),
        entry(broken, "broken", **lent),
        entry(empty, "empty", **lent),
        entry(tiny_folder, "huge", device=None, needs={"transformer": 60}),
        entry(tiny_folder, "small"),
    )
    with FakeZeroGpu() as api:
        settings = {
            "STEPWISE_MODELS": str(models),
            "STEPWISE_THREADS": str(torch.get_num_threads()),
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": api.url,
            "ZEROGPU_OFFLOAD_DIR": str(folder / "tensors"),
            "LOSE_GPU": str(folder / "lose"),
        }
        with serve(folder, "-m", "tests.support.services.zerogpu_space", **settings) as url:
            yield Space(url, api, folder / "lose")


@pytest.fixture
def space(running: Space) -> Iterator[Space]:
    running.api.reset()
    yield running
    running.steps.go_on()


@pytest.fixture
def direct(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The same models in this process, in the dtype of a GPU."""
    here = hardware.Device("cpu", "bfloat16", 0, "this CPU")
    monkeypatch.setattr(hardware, "accelerator", lambda wanted="auto": here)
    return Engine(catalogue(tmp_path, entry(tiny_folder, device=None)))


def picture(seen: Seen) -> np.ndarray:
    images, info = seen[-1]
    assert info["phase"] == "finished", info
    return pixels(Path(images[0]["image"]).read_bytes())


def words(seen: Seen) -> str:
    info = seen[-1][1]
    assert info["phase"] == "failed", info
    return info["error"]


def test_a_worker_draws_the_same_pixels_as_this_process(space: Space, direct: Engine) -> None:
    drawn = picture(space.draw())
    assert np.array_equal(drawn, pixels(draw(direct, **APPLE, width=None, height=None).images[0]))
    assert drawn.std() > 1


def test_every_step_of_the_worker_is_seen_with_its_preview(space: Space) -> None:
    space.steps.hold(1)
    seen = []
    for images, info in space.visitor.submit(**APPLE, steps=5, api_name="/generate"):
        seen.append((images, info))
        space.steps.hold(info["step"] + 1)
    previews = {info["step"]: Path(images[0]["image"]).read_bytes() for images, info in seen if images}
    assert {1, 2, 3, 4, 5} <= set(previews)
    assert len({previews[step] for step in (1, 2, 3, 4)}) == 4


def test_the_jobs_before_leave_nothing_in_a_worker(space: Space, direct: Engine) -> None:
    space.draw(prompt="two birds", negative_prompt="blue", width=96, guidance=7.5, seed=1, images=2)
    space.draw(model="broken")
    workers = list(space.api.workers)
    drawn = picture(space.draw())
    assert space.api.workers == workers  # still the same one
    assert np.array_equal(drawn, pixels(draw(direct, **APPLE, width=None, height=None).images[0]))


def test_a_stop_reaches_the_worker_which_then_draws_the_next_job(space: Space, direct: Engine) -> None:
    job = str(uuid.uuid4())
    space.steps.hold(2)
    drawing = space.visitor.submit(**APPLE, steps=50, job=job, api_name="/generate")
    for _, info in drawing:
        if info["step"] == 2 and info["phase"] == "denoising":
            space.visitor.predict(job, api_name="/stop")
    images, info = drawing.outputs()[-1]
    assert info["phase"] == "stopped"
    assert info["step"] <= 3  # the one that was begun
    space.steps.go_on()
    assert pixels(Path(images[0]["image"]).read_bytes()).std() > 1  # the last preview stays
    workers = list(space.api.workers)
    assert np.array_equal(
        picture(space.draw()), pixels(draw(direct, **APPLE, width=None, height=None).images[0])
    )
    assert space.api.workers == workers
    assert space.api.given_back == ["false", "false"]


def test_a_failure_in_the_worker_keeps_its_words(space: Space) -> None:
    assert "Broken produced numbers that are not finite" in words(space.draw(model="broken"))
    assert space.api.given_back == ["false"]


def test_a_killed_worker_is_told_in_words_and_the_next_job_gets_another(space: Space) -> None:
    seen = []
    killed: int | None = None
    space.steps.hold(1)
    for seen_now in space.visitor.submit(**APPLE, steps=50, api_name="/generate"):
        seen.append(seen_now)
        if killed is None and seen_now[1]["step"] == 1:
            killed = space.api.workers[-1]
            os.kill(killed, signal.SIGKILL)
            space.steps.go_on()
    assert "its process died" in words(seen)
    assert "fewer steps" in words(seen)
    picture(space.draw())
    assert space.api.workers[-1] != killed


def test_a_job_whose_worker_loses_its_gpu_is_drawn_again_by_another_worker(space: Space) -> None:
    picture(space.draw())
    lost = space.api.workers[-1]
    space.lose.touch()
    seen = space.draw()
    picture(seen)
    assert not space.lose.exists()
    assert any("drawn again" in warning for warning in seen[-1][1]["warnings"])
    assert space.api.workers[-1] != lost
    assert space.api.given_back == ["false", "true", "false"]


def test_a_visitor_without_quota_left_is_told_how_much_is_left_and_when_there_is_more(space: Space) -> None:
    space.api.refusal = 429, {"left": 12, "wait": 3600}
    told = words(space.draw())
    assert "12 s are left of your daily quota" in told
    assert "1:00:00" in told
    assert space.api.given_back == []
    answer = httpx.post(f"{space.url}/v1/images/generations", json=APPLE, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_exceeded")
    assert answer.headers["x-should-retry"] == "false"  # more of the same wouldn't help


def test_a_caller_whom_zerogpu_does_not_see_is_told_that_the_space_pays(space: Space) -> None:
    space.api.refusal = 429, {"left": 0, "wait": 3600}
    stranger = Client(space.url, verbose=False)
    assert "This Space's own share" in words(space.draw(stranger))


def test_no_free_gpu_is_told_in_words(space: Space) -> None:
    space.api.refusal = 503, {}
    assert "No GPU became free" in words(space.draw())


def test_the_quota_asked_is_the_visitors_and_grows_with_the_drawing(space: Space) -> None:
    space.draw()
    space.draw(steps=12)
    few, many = space.api.asked
    assert few["token"] == many["token"] == VISITOR
    assert few["gpuSize"] == "large"
    assert 1 <= int(few["durationSeconds"]) <= int(many["durationSeconds"]) < 60


def test_callers_of_the_routes_beside_gradio_pay_with_their_own_quota_too(space: Space) -> None:
    headers = {"X-IP-Token": VISITOR}
    asked = {"json": APPLE, "headers": headers, "timeout": 60}
    httpx.post(f"{space.url}/v1/images/generations", **asked).raise_for_status()

    async def call_tool(**headers: str) -> None:
        async with connected(space.url, **headers) as session:
            await session.call_tool("draw", APPLE)

    asyncio.run(call_tool())
    asyncio.run(call_tool(**headers))
    assert [asked.get("token") for asked in space.api.asked] == [VISITOR, None, VISITOR]


def test_a_stop_does_not_wait_for_a_gpu_and_one_that_is_lent_too_late_is_given_back(space: Space) -> None:
    space.api.waiting.set()
    job = str(uuid.uuid4())
    drawing = space.visitor.submit(**APPLE, job=job, api_name="/generate")
    assert space.api.in_line.wait(60)
    space.visitor.predict(job, api_name="/stop")
    assert [info["phase"] for _, info in drawing][-1] == "stopped"
    assert space.api.given_back == []
    space.api.lent.set()
    assert space.api.returned.wait(60)
    assert space.api.given_back == ["false"]


def test_two_visitors_are_lent_a_gpu_each_and_do_not_wait_for_each_other(space: Space) -> None:
    job = str(uuid.uuid4())
    space.steps.hold(20)  # more than the other's
    slow = space.visitor.submit(**APPLE, steps=60, job=job, api_name="/generate")
    while space.api.asked == []:
        time.sleep(0.05)
    other = Client(space.url, verbose=False)
    picture(space.draw(other))
    assert not slow.done()
    space.visitor.predict(job, api_name="/stop")
    assert [info["phase"] for _, info in slow][-1] == "stopped"
    assert len(space.api.asked) == 2


def test_what_is_drawn_on_the_cpu_asks_for_no_gpu(space: Space) -> None:
    picture(space.draw(model="small"))
    assert space.api.asked == []


def test_a_model_that_is_not_held_is_listed_with_the_reason(space: Space) -> None:
    listed = {model["id"]: model for model in space.visitor.predict(api_name="/models")}
    assert [name for name, model in listed.items() if model["available"]] == ["tiny", "broken", "small"]
    assert "don't fit beside Tiny and Broken" in listed["huge"]["reason"]
    assert "STEPWISE_ZEROGPU_SIZE=xlarge" in listed["huge"]["reason"]
    assert "no model_index.json" in listed["empty"]["reason"]
