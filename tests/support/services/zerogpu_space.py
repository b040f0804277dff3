"""Runs app.py as on ZeroGPU, on a machine without a GPU: `python -m tests.support.services.zerogpu_space`.

`spaces` is real: it makes torch believe in a GPU, asks for one, forks a worker, relays what that yields, and
looks for a stop. Two of its functions are stood in for, the two that touch a GPU in the worker: `init`, which
wakes it, and `move`, which puts the weights there; here they go to the CPU's memory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from pathlib import Path
from typing import Any

import torch

with contextlib.suppress(ImportError):
    import bitsandbytes  # noqa: F401  # while there is no GPU to be seen: else it looks for CUDA's libraries

# torch's CPU build lacks these, and spaces (0.51) looks at them when it is imported.
torch.version.cuda = "13.0"
torch._C._cuda_init = lambda: None
torch.cuda._is_in_bad_fork = bool  # False, as there; the CPU build's own is a lambda, which doesn't pickle

import spaces.zero.torch as zero  # noqa: E402
from spaces.zero.torch import patching  # noqa: E402

LOSE = Path(os.environ.get("LOSE_GPU", "nowhere"))
"""Where this file is, the next step goes as where the GPU fails, and takes the file away."""


def move(callback: Any = None) -> None:
    """What was put on "cuda" in the parent, back from where `spaces` packed it."""
    for pack in patching.tensor_packs:
        with open(pack.path(), "rb") as file:  # noqa: PTH123
            for tensor, size, aligned in itertools.chain(*pack.batches, pack.big_tensors):
                raw = torch.frombuffer(bytearray(file.read(aligned)[:size]), dtype=torch.uint8)
                whole = torch.empty(0, dtype=tensor.dtype)
                whole.set_(raw.untyped_storage(), 0, tensor.shape, tensor.stride())
                for fake in pack.fakes[tensor]:
                    fake.data = whole


zero.init = lambda uuid: None
zero.move = move


def main() -> None:
    import diffusers

    import app

    forward = diffusers.SD3Transformer2DModel.forward

    def losing(*args: Any, **kwargs: Any) -> Any:
        if LOSE.exists():
            LOSE.unlink()
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return forward(*args, **kwargs)

    diffusers.SD3Transformer2DModel.forward = losing
    sys.exit(app.main())


if __name__ == "__main__":
    main()
