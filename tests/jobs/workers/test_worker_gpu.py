"""A worker process on a CUDA GPU: the embedded model, let off its leash to the CPU."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.data_dir.folder import DataFolder
from jobs.limits import Limits
from jobs.queue import Queue
from jobs.store.models import Owner
from jobs.workers.executors import executors
from jobs.workers.process import WorkerProcess
from pipeline.devices.threads import start_thread
from pipeline.engine import Engine, EngineSpec
from pipeline.errors import WorkerDied
from pipeline.request import Job
from pipeline.run import Drawing
from tests.jobs.queueing import counts
from tests.support.tiny import ROOT, models_yaml, pixels, repository_entries

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; this machine has none"),
]
ANN = Owner("user:ann")
Lose = Callable[[WorkerProcess], None]
LONG = 1000
"""Steps that take seconds on any GPU, so that something can happen to them."""
LOSES_ITS_GPU = """
import os, sys, threading, time
from pathlib import Path

def watch():
    gate = Path({gate!r} + str(os.getpid()))
    while not gate.exists():
        time.sleep(0.002)
    import torch
    torch.zeros(1, device="cuda")[torch.tensor([9], device="cuda")]

if "jobs.workers.worker" in sys.orig_argv:
    threading.Thread(target=watch, daemon=True).start()
"""
"""Of each worker: when that file is there, with its process id at the end of its name, an index out of range,
which the GPU itself asserts against."""


@pytest.fixture(scope="module")
def lose_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[WorkerProcess], None]]:
    """Has a worker lose its GPU."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "sitecustomize.py").write_text(LOSES_ITS_GPU.format(gate=str(folder / "gate")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield lambda worker: (folder / f"gate{worker.pid}").touch()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    sketch = repository_entries()["sketch"] | {"id": "on-gpu"}
    del sketch["device"]
    sketch["limits"] = sketch["limits"] | {"steps": [1, LONG]}
    return EngineSpec(models_yaml(tmp_path_factory.mktemp("models"), sketch))


@pytest.fixture(scope="module")
def engine(spec: EngineSpec) -> Engine:
    return spec.engine()


@pytest.fixture(scope="module")
def queue(
    lose_gpu: Lose, spec: EngineSpec, engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator:
    """With one worker, and it."""
    several = executors(engine, spec, 1)
    (worker,) = several["cuda"]
    assert isinstance(worker, WorkerProcess)
    made = Queue(engine, DataFolder(tmp_path_factory.mktemp("data")), several, Limits())
    until(lambda: ready(worker))
    yield made, worker
    made.close()


def job(engine: Engine, **values: Any) -> Job:
    return engine.check({"prompt": "a fox on a blue background", "model": "on-gpu", "seed": 1} | values)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def ready(worker: WorkerProcess) -> bool:
    return not worker.capabilities().reason


def drawn_by(worker: WorkerProcess, job: Job) -> Drawing:
    """Has the worker draw, in a thread of its own."""
    drawing = Drawing(job)
    start_thread("draws for a test", worker.run, job, drawing.publish, drawing.cancel)
    return drawing


def undisturbed(engine: Engine, **values: Any) -> np.ndarray:
    return pixels(engine.start(job(engine, **values)).result().images[0])


def test_a_worker_draws_on_the_gpu_what_this_process_draws_there(
    queue: tuple[Queue, WorkerProcess], engine: Engine
) -> None:
    last = queue[0].start(job(engine), ANN).result()
    assert last.phase == "finished", last.error
    assert np.array_equal(pixels(last.images[0]), undisturbed(engine))


def test_the_memory_that_a_workers_tensors_take_is_told(queue: tuple[Queue, WorkerProcess]) -> None:
    until(lambda: (queue[1].gpu_memory() or (0,))[0])
    told, memory = counts(queue[0]), queue[1].gpu_memory()
    assert memory is not None
    assert told["stepwise_gpu_memory_allocated_bytes", "0"] == memory[0]
    assert told["stepwise_gpu_memory_total_bytes", "0"] == torch.cuda.get_device_properties(0).total_memory


@pytest.mark.parametrize("how", ["killed", "lost"])
def test_a_job_whose_worker_dies_or_loses_its_gpu_is_drawn_again_by_a_new_one(
    queue: tuple[Queue, WorkerProcess], engine: Engine, lose_gpu: Lose, how: str
) -> None:
    made, worker = queue
    until(lambda: ready(worker))
    restarts = worker.capabilities().restarts
    following = made.start(job(engine, steps=LONG), ANN, "detached")
    next(event for event in following.events() if event.step >= 5)
    if how == "killed":
        worker.kill()
    else:
        lose_gpu(worker)
    last = following.result()
    assert last.phase == "finished", last.error
    assert worker.capabilities().restarts == restarts + 1
    assert np.array_equal(pixels(last.images[0]), undisturbed(engine, steps=LONG))


def test_a_lost_gpu_is_told_by_its_name(spec: EngineSpec, engine: Engine, lose_gpu: Lose) -> None:
    worker = WorkerProcess(spec)
    try:
        until(lambda: ready(worker))
        drawing = drawn_by(worker, job(engine, steps=LONG))
        next(event for event in drawing.events() if event.step)
        lose_gpu(worker)
        last = drawing.result()
        assert (last.phase, last.code) == ("failed", WorkerDied.code)
        assert "device-side assert triggered" in str(last.error)
    finally:
        worker.close()
        until(lambda: worker.pid is None)


SERVER = """
import sys, time
from pathlib import Path
from jobs.workers.executors import executors
from jobs.data_dir.folder import DataFolder
from jobs.queue import Queue
from jobs.store.models import Owner
from jobs.limits import Limits
from pipeline.engine import EngineSpec

spec = EngineSpec(Path(sys.argv[1]))
engine = spec.engine()
several = executors(engine, spec, 1)
queue = Queue(engine, DataFolder(Path(sys.argv[2])), several, Limits())
while several["cuda"][0].capabilities().reason:
    time.sleep(0.02)
values = {"prompt": "a fox", "model": "on-gpu", "seed": 1}
print(queue.start(engine.check(values), Owner("user:ann")).result().phase, flush=True)
sys.stdin.read()
queue.close()
"""


def test_a_server_whose_worker_draws_takes_nothing_of_the_gpu_itself(
    spec: EngineSpec, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SERVER, str(spec.models), str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        with contextlib.closing(server.stdin):
            assert server.stdout.readline() == "finished\n"
            query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
            on_gpu = {
                int(pid) for pid in subprocess.run(query, capture_output=True, text=True).stdout.split()
            }
            children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
            theirs = {
                int(child)
                for task in children.parent.parent.iterdir()
                for child in (task / "children").read_text().split()
            }
    assert server.pid not in on_gpu
    assert theirs & on_gpu


FREE = """
import json, os, subprocess, torch
from pipeline.devices.cuda_memory import CONTEXT, free_gpu_memory

def on_gpu():
    query = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    return str(os.getpid()) in subprocess.run(query, capture_output=True, text=True).stdout.split()

ours, took = free_gpu_memory(), on_gpu()
print(json.dumps([ours, torch.cuda.mem_get_info(0)[0], CONTEXT, took]))
"""


def test_what_is_free_of_a_gpu_is_what_torch_says_is_and_asking_takes_nothing_of_it(engine: Engine) -> None:
    said = subprocess.run([sys.executable, "-c", FREE], cwd=ROOT, capture_output=True, text=True, check=True)
    ours, torchs, context, took = json.loads(said.stdout)
    # A context of torch's is at least half of what is deducted for one, and never more.
    assert 0 <= torchs - ours <= context / 2
    assert not took


@pytest.mark.parametrize("by", ["number", "uuid"])
def test_what_is_free_is_that_of_the_gpu_that_the_process_may_see(engine: Engine, by: str) -> None:
    last = torch.cuda.device_count() - 1
    name = f"{last}" if by == "number" else f"GPU-{torch.cuda.get_device_properties(last).uuid}"
    taken = torch.empty(2 * 10**9, dtype=torch.uint8, device=f"cuda:{last}")  # so that two GPUs differ
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": name}
    said = subprocess.run(
        [sys.executable, "-c", FREE], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    del taken
    ours, torchs, context, _ = json.loads(said.stdout)
    assert 0 <= torchs - ours <= context / 2


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs; this machine has not")
def test_each_worker_has_a_gpu_of_its_own(spec: EngineSpec, engine: Engine) -> None:
    before = [torch.cuda.mem_get_info(number)[0] for number in range(2)]
    worker = WorkerProcess(spec, number=1)
    try:
        until(lambda: ready(worker))
        assert drawn_by(worker, job(engine)).result().phase == "finished"
        after = [torch.cuda.mem_get_info(number)[0] for number in range(2)]
        assert before[1] - after[1] > 100 * 2**20
        assert abs(before[0] - after[0]) < 10 * 2**20
    finally:
        worker.close()
        until(lambda: worker.pid is None)
