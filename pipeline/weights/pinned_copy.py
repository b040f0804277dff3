"""A module's tensors in host memory, from where they go back to the GPU at the full speed of the bus.

Weights don't change, so the copy is made once and kept: leaving the GPU again is letting go of the tensors
there.
"""

from __future__ import annotations

import torch

CHUNK = 2**30
"""Bytes. PyTorch's allocator of pinned memory (2.13) rounds each request up to a power of two: in blocks that
are one already nothing is lost, and what one copy leaves fits the next."""
_ALIGNMENT = 256
"""Bytes: each tensor starts at a multiple, as CUDA's own allocations do."""


class HostCopy:
    """All parameters and buffers of a module in a few blocks of host memory, page-locked where there is CUDA.

    size: bytes of host memory that it takes.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        """Copies the module's tensors, from wherever they are, and leaves the module as it is."""
        self._module = module
        tensors = tensors_of(module)
        blocks, places = _places([tensor.nbytes for tensor in tensors])
        pinned = torch.cuda.is_available()
        memory = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for size in blocks]
        self.size = sum(1 << (size - 1).bit_length() if pinned else size for size in blocks)
        self._copies = [
            memory[block][place : place + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for (block, place), tensor in zip(places, tensors, strict=True)
        ]
        for copy, tensor in zip(self._copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors):
            torch.cuda.synchronize()

    def to_device(self, device: torch.device) -> None:
        """Puts the module's tensors on the device."""
        for tensor, copy in zip(tensors_of(self._module), self._copies, strict=True):
            tensor.data = copy.to(device, non_blocking=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    def to_host(self) -> None:
        """Makes the module's tensors this copy; what was on the device is let go of."""
        for tensor, copy in zip(tensors_of(self._module), self._copies, strict=True):
            tensor.data = copy


def tensors_of(module: torch.nn.Module) -> list[torch.Tensor]:
    """A module's parameters and buffers, each once. Asked anew each time: moving a module (`.to`) gives it
    other buffers, in the same order."""
    return [*module.parameters(), *module.buffers()]


def _places(sizes: list[int]) -> tuple[list[int], list[tuple[int, int]]]:
    """Bytes of each block, and for each tensor its block and its place there. No block is larger than CHUNK
    but one for a tensor that is."""
    blocks: list[int] = []
    places = []
    for size in sizes:
        aligned = -(-size // _ALIGNMENT) * _ALIGNMENT
        if not blocks or blocks[-1] + aligned > CHUNK:
            blocks.append(0)
        places.append((len(blocks) - 1, blocks[-1]))
        blocks[-1] += aligned
    return blocks, places
