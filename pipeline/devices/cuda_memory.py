"""How much memory a CUDA GPU has left, and how much of it this process' tensors take. Asking takes none of
it: a server whose worker processes draw leaves the GPU to them.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

import torch

DRIVER = "libcuda.so.1"
"""NVIDIA's driver. Another system's, and ROCm's, goes by another name, and torch is asked instead."""


def gpu_memory() -> tuple[int, int]:
    """Bytes of GPU 0 that this process' tensors take, and all that it has."""
    return torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory


def free_gpu_memory() -> int:
    """Bytes of GPU 0 that a process may take which begins to use it: its CUDA context, 543 MB on an H100, is
    deducted already.

    `torch.cuda.mem_get_info` gives the same number and keeps that context, as long as the process lives.
    """
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return torch.cuda.mem_get_info(0)[0]
    try:
        with _context(driver):
            left, total = ctypes.c_size_t(), ctypes.c_size_t()
            _ask(driver.cuMemGetInfo_v2, ctypes.byref(left), ctypes.byref(total))
            return left.value
    except _Refused:
        return torch.cuda.mem_get_info(0)[0]


class _Refused(Exception):
    """The driver answered with an error."""


def _ask(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    if function(*arguments):
        raise _Refused


@contextlib.contextmanager
def _context(driver: ctypes.CDLL) -> Iterator[None]:
    """GPU 0's own ("primary") context, which torch uses too: counted, so that one which is in use stays."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _ask(driver.cuInit, 0)
    _ask(driver.cuDeviceGet, ctypes.byref(device), 0)
    _ask(driver.cuDevicePrimaryCtxRetain, ctypes.byref(context), device)
    try:
        _ask(driver.cuCtxPushCurrent_v2, context)
        try:
            yield
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(context))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)
