"""From the start of a process to the first preview, imports apart; and beside it how fast the same files can
be copied to the device at all. Imports nothing heavy at its top: imports are part of what is measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STARTED = "STEPWISE_BENCH_STARTED"
"""The environment variable that tells a section's process when (time.time) it was started."""
PARTS = ("page cache", "cold 1", "cold 2", "raw copy")
CHUNK = 64 * 2**20
"""Bytes of one read, and of the pinned buffer."""
READERS = 4

Result = tuple[str, dict[str, Any]]


def cold(folder: Path, only: list[str], part: str) -> Iterator[Result]:
    """The first of the models, in four processes: one fills the page cache, two draw, one copies."""
    if part == "page cache":
        yield part, _read_once(_files(folder, only))
    elif part == "raw copy":
        yield part, _raw_copy(_files(folder, only))
    else:
        yield part, _first_preview(folder, only)


def _first_preview(folder: Path, only: list[str]) -> dict[str, Any]:
    began = float(os.environ.get(STARTED) or time.time())
    clock = [began, time.time()]

    from bench.fullsize import drive

    clock.append(time.time())
    catalogue = drive.catalogue(folder, only)
    model = drive.ids(catalogue)[0]
    engine = drive.engine(catalogue)
    clock.append(time.time())
    drawing, _ = drive.start(engine, model)
    # When loading, encoding and denoising began, as far as that was seen.
    seen: dict[str, float] = {}
    for event in drawing.events():
        seen.setdefault(event.phase, time.time())
        if event.previews or event.last:
            break
    clock.append(time.time())
    drawing.stop()
    ended = drawing.result()
    size = sum(file.stat().st_size for file in drive.weights_files(catalogue[model]))
    found = {
        "model": model,
        "python": clock[1] - clock[0],
        "imports": clock[2] - clock[1],
        "engine": clock[3] - clock[2],
        "to first preview": clock[4] - clock[3],
        "from the process": clock[4] - clock[0],
        "without imports": clock[4] - clock[0] - (clock[2] - clock[1]),
        "GB": size / drive.GB,
        **drive.outcome(ended),
    }
    if "loading" in seen:
        found["before loading"] = seen["loading"] - clock[3]  # classes, tokenizers, CUDA's context
    ends = {"loading": "encoding", "encoding": "denoising"}
    found |= {a: seen[b] - seen[a] for a, b in ends.items() if a in seen and b in seen}
    if "denoising" in seen:
        found["first step and preview"] = clock[4] - seen["denoising"]
    if found.get("loading"):
        found["GB/s"] = found["GB"] / found["loading"]
    return found


def _files(folder: Path, only: list[str]) -> list[Path]:
    from bench.fullsize import drive

    catalogue = drive.catalogue(folder, only)
    return drive.weights_files(catalogue[drive.ids(catalogue)[0]])


def _read_once(files: list[Path]) -> dict[str, Any]:
    """Reads every file, so that it comes from the page cache afterwards."""
    began = time.monotonic()
    with ThreadPoolExecutor(READERS) as pool:
        total = sum(pool.map(_read, files))
    return {"GB": total / 1e9, "GB/s": total / 1e9 / (time.monotonic() - began)}


def _read(file: Path) -> int:
    buffer, total = bytearray(CHUNK), 0
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            total += count
    return total


def _raw_copy(files: list[Path]) -> dict[str, Any]:
    """The same files to the device without an engine, three ways; GB/s of each."""
    import torch
    from safetensors.torch import load_file

    if not torch.cuda.is_available():
        return {"skipped": "needs a CUDA GPU: on the CPU there is no copy to time."}
    device = torch.device("cuda")
    torch.zeros(1, device=device)
    total = sum(file.stat().st_size for file in files)
    found: dict[str, Any] = {"GB": total / 1e9}

    def timed(name: str, copy: Any) -> None:
        torch.cuda.synchronize()
        began = time.monotonic()
        kept = copy()
        torch.cuda.synchronize()
        found[name] = total / 1e9 / (time.monotonic() - began)
        del kept
        torch.cuda.empty_cache()

    timed("safetensors, one thread", lambda: [load_file(file, device="cuda") for file in files])
    timed("pinned buffer, one thread", lambda: [_through_pinned(file, device) for file in files])
    with ThreadPoolExecutor(READERS) as pool:
        timed(
            f"pinned buffers, {READERS} threads",
            lambda: list(pool.map(lambda file: _through_pinned(file, device), files)),
        )
    return found


def _through_pinned(file: Path, device: Any) -> Any:
    """A file's bytes on the device, [size], read into one pinned buffer again and again."""
    import torch

    buffer = torch.empty(CHUNK, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(file.stat().st_size, dtype=torch.uint8, device=device)
    stream, offset = torch.cuda.Stream(), 0
    with file.open("rb", buffering=0) as opened, torch.cuda.stream(stream):
        while count := opened.readinto(buffer.numpy()):
            target[offset : offset + count].copy_(buffer[:count], non_blocking=True)
            stream.synchronize()
            offset += count
    return target
