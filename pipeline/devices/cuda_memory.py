"""How much memory a CUDA GPU has left, and how much of it this process' tensors take. Asking takes none of
it: a server whose worker processes draw leaves the GPU to them.
"""

from __future__ import annotations

from typing import Any

import pynvml
import torch

CONTEXT = 600 * 10**6
"""Bytes that a process' CUDA context takes of a GPU before the first tensor, rounded up: 543 MB on an H100,
549 MB on an H200 (PyTorch 2.11, driver 580)."""


def gpu_memory() -> tuple[int, int]:
    """Bytes of GPU 0 that this process' tensors take, and all that it has."""
    return torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory


def free_gpu_memory() -> int:
    """Return the bytes of GPU 0 that a process which begins to use it may take: its CUDA context is deducted.

    NVIDIA's management library (NVML) is asked, which needs no context; `torch.cuda.mem_get_info` makes one,
    and keeps it as long as the process lives. Only where NVML isn't there or can't tell (another maker's GPU,
    a GPU without memory of its own) is torch asked.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return torch.cuda.mem_get_info(0)[0]
    try:
        return max(0, pynvml.nvmlDeviceGetMemoryInfo(_gpu_0()).free - CONTEXT)
    except pynvml.NVMLError:
        return torch.cuda.mem_get_info(0)[0]
    finally:
        pynvml.nvmlShutdown()


def _gpu_0() -> Any:
    """Return NVML's handle of what torch calls GPU 0.

    NVML counts all GPUs of the machine; torch only those that CUDA_VISIBLE_DEVICES names, by number or UUID,
    in its own order. The UUID is the same for both, and a slice of a GPU (MIG) has one of its own.

    Raises:
        pynvml.NVMLError: NVML knows no GPU by torch's UUID.
    """
    uuid = torch.cuda.get_device_properties(0).uuid
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
