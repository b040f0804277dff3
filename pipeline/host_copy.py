"""A module's tensors in host memory, from where they go back to the GPU at the full speed of the bus.

Weights don't change, so the copy is made once and kept: leaving the GPU again is letting go of the tensors
there.
"""

from __future__ import annotations

import contextlib
import weakref

import torch

_ALIGNMENT = 256
"""Bytes: each tensor starts at a multiple, as CUDA's own allocations do."""


class HostCopy:
    """All parameters and buffers of a module in one block of host memory; pinned where there is CUDA.

    The block is ordinary memory that is registered with CUDA: PyTorch's own pinned allocator (2.13) rounds
    each request up to a power of two, which would cost up to twice the memory.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        """Copies the module's tensors, from wherever they are, and leaves the module as it is."""
        self._tensors = tensors_of(module)
        places, self.size = [], 0
        for tensor in self._tensors:
            places.append(self.size)
            self.size += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        block = torch.empty(self.size, dtype=torch.uint8)
        if torch.cuda.is_available() and self.size:
            self._pin(block)
        self._copies = [
            block[place : place + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for place, tensor in zip(places, self._tensors, strict=True)
        ]
        for copy, tensor in zip(self._copies, self._tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in self._tensors):
            torch.cuda.synchronize()

    def to_device(self, device: torch.device) -> None:
        """Puts the module's tensors on the device."""
        for tensor, copy in zip(self._tensors, self._copies, strict=True):
            tensor.data = copy.to(device, non_blocking=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def to_host(self) -> None:
        """Makes the module's tensors this copy; what was on the device is let go of."""
        for tensor, copy in zip(self._tensors, self._copies, strict=True):
            tensor.data = copy

    def _pin(self, block: torch.Tensor) -> None:
        """Page-locks the block for as long as this copy lives. Where the system doesn't allow that (a limit
        on locked memory) it stays as it is: moving it is then several times slower, and right."""
        runtime, address = torch.cuda.cudart(), block.data_ptr()
        if int(runtime.cudaHostRegister(address, block.nbytes, 0)) == 0:
            weakref.finalize(self, runtime.cudaHostUnregister, address).atexit = False
            return
        with contextlib.suppress(RuntimeError):  # CUDA reports the refusal once more, to whoever is next
            torch.zeros(1, device="cuda")


def tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    """A module's parameters and buffers, each once."""
    return [*module.parameters(), *module.buffers()]
