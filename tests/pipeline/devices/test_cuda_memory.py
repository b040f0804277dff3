"""What is free of a GPU is asked of NVML, about the GPU that torch calls number 0. A stand-in for NVML: the
test machine has none. tests/jobs/workers/test_worker_gpu.py asks the real one.
"""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
import torch

from pipeline.devices.cuda_memory import CONTEXT, free_gpu_memory

TORCHS = 60 * 10**9
"""What torch says is free: asked only where NVML can't tell."""
FIRST, SECOND, SLICE = "GPU-11-aa", "GPU-22-bb", "MIG-33-cc"
FREE = {FIRST: 70 * 10**9, SECOND: 30 * 10**9, SLICE: 9 * 10**9}
"""Bytes that are free of each GPU of NVML's."""


class Nvml:
    """Answers as NVML does about the GPUs in FREE. refuses: a function of its that answers with an error.
    open: how many have begun to use it and not ended."""

    def __init__(self) -> None:
        self.refuses, self.open = "", 0

    def nvmlInit(self) -> None:
        self._answer("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._answer("nvmlDeviceGetHandleByUUID")
        if uuid not in FREE:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        self._answer("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(free=FREE[handle], total=80 * 10**9)

    def _answer(self, name: str) -> None:
        if name == self.refuses:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    made = Nvml()
    for name in dir(made):
        if name.startswith("nvml"):
            getattr(pynvml, name)  # there to be replaced
            monkeypatch.setattr(pynvml, name, getattr(made, name))
    return made


@pytest.fixture(autouse=True)
def asked_torch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The GPUs about which torch was asked: it makes a context for that."""
    asked: list[int] = []

    def mem_get_info(number: int) -> tuple[int, int]:
        asked.append(number)
        return TORCHS, 80 * 10**9

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    torch_sees(monkeypatch, FIRST)
    return asked


def torch_sees(monkeypatch: pytest.MonkeyPatch, gpu: str) -> None:
    """Makes this GPU torch's number 0, as CUDA_VISIBLE_DEVICES may."""
    properties = SimpleNamespace(uuid=gpu.partition("-")[2])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: {0: properties}[number])


def test_a_context_is_deducted_and_none_is_made(nvml: Nvml, asked_torch: list[int]) -> None:
    assert free_gpu_memory() == FREE[FIRST] - CONTEXT
    assert asked_torch == []
    assert nvml.open == 0


@pytest.mark.parametrize("gpu", [SECOND, SLICE])
def test_the_gpu_that_torch_calls_the_first_is_asked_about_also_a_slice_of_one(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch, gpu: str
) -> None:
    torch_sees(monkeypatch, gpu)
    assert free_gpu_memory() == FREE[gpu] - CONTEXT


def test_of_a_full_gpu_nothing_is_free_rather_than_less(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FREE, FIRST, 1000)
    assert free_gpu_memory() == 0


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetMemoryInfo"])
def test_where_nvml_cant_tell_it_is_closed_and_torch_is_asked(
    nvml: Nvml, asked_torch: list[int], function: str
) -> None:
    nvml.refuses = function
    assert free_gpu_memory() == TORCHS
    assert (nvml.open, asked_torch) == (0, [0])


def test_a_gpu_that_nvml_doesnt_know_is_left_to_torch(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_sees(monkeypatch, "GPU-99-zz")
    assert free_gpu_memory() == TORCHS
    assert nvml.open == 0


def test_without_nvidias_driver_torch_is_asked(nvml: Nvml, asked_torch: list[int]) -> None:
    nvml.refuses = "nvmlInit"
    assert free_gpu_memory() == TORCHS
    assert (nvml.open, asked_torch) == (0, [0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without NVIDIA's driver")
def test_nvml_itself_says_so_where_there_is_no_driver() -> None:
    with pytest.raises(pynvml.NVMLError):
        pynvml.nvmlInit()
    assert free_gpu_memory() == TORCHS
