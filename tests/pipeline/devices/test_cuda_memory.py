"""What is free of a GPU is asked of its driver, which gets back what it was asked with. A stand-in for the
driver: the test machine has none. tests/jobs/workers/test_worker_gpu.py asks a real one.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from pipeline.devices import cuda_memory
from pipeline.devices.cuda_memory import free_gpu_memory

CONTEXT = [
    "cuDevicePrimaryCtxRetain",
    "cuCtxPushCurrent_v2",
    "cuCtxPopCurrent_v2",
    "cuDevicePrimaryCtxRelease_v2",
]


class Driver:
    """Answers each call with its number, by the name of the function; 0: well. called: names, in order."""

    def __init__(self, **answers: int) -> None:
        self.called: list[str] = []
        self._answers = answers

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.called.append(name)
            if name == "cuMemGetInfo_v2":
                for argument, size in zip(arguments, (70, 80), strict=True):
                    argument._obj.value = size
            return self._answers.get(name, 0)

        return call


@pytest.fixture
def torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60, 80))


def with_driver(monkeypatch: pytest.MonkeyPatch, **answers: int) -> Driver:
    driver = Driver(**answers)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: driver)
    return driver


def test_the_drivers_context_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = with_driver(monkeypatch)
    assert free_gpu_memory() == 70
    assert [name for name in driver.called if "Ctx" in name] == CONTEXT


def test_a_driver_that_refuses_keeps_no_context_either_and_torch_is_asked(
    monkeypatch: pytest.MonkeyPatch, torchs: None
) -> None:
    driver = with_driver(monkeypatch, cuMemGetInfo_v2=2)
    assert free_gpu_memory() == 60
    assert [name for name in driver.called if "Ctx" in name] == CONTEXT


def test_a_context_that_was_not_to_be_had_is_not_given_back(
    monkeypatch: pytest.MonkeyPatch, torchs: None
) -> None:
    driver = with_driver(monkeypatch, cuDevicePrimaryCtxRetain=2)
    assert free_gpu_memory() == 60
    assert driver.called[-1] == "cuDevicePrimaryCtxRetain"


def test_without_that_driver_torch_is_asked(monkeypatch: pytest.MonkeyPatch, torchs: None) -> None:
    monkeypatch.setattr(cuda_memory, "DRIVER", "no-such-driver.so")
    assert free_gpu_memory() == 60
