"""Runs sections, each of their parts in a process of its own, and keeps what they find: a crash of one, or
the end of this process, costs nothing that was found before.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.fullsize.measures.cold import STARTED
from bench.fullsize.sections import MARK, SECTIONS
from bench.support.table import ROOT, setting

TAIL = 12
"""Lines of what a failed process said last that are kept."""


def run(folder: Path, sections: list[str], only: list[str], out: Path, limit: float) -> bool:
    """Runs these sections and adds what they find to `out`, in place of what was there of each part:
    section → part → name → figures. limit: seconds for each part.

    Returns: whether every part ended by itself, and well.
    """
    results = (
        json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"settings": [], "sections": {}}
    )
    where = _setting()
    if where not in results["settings"]:
        results["settings"].append(where)
    print(where, flush=True)
    well = True
    for name in sections:
        if SECTIONS[name].gpu and not torch.cuda.is_available():
            why = f"needs a CUDA GPU {SECTIONS[name].gpu}."
            results["sections"][name] = {"all": {"all": {"skipped": why}}}
            print(f"{name} | skipped: {why}", flush=True)
            _save(out, results)
            continue
        parts = SECTIONS[name].load(SECTIONS[name].parts)
        for part in parts(folder, only) if callable(parts) else parts:
            began = time.monotonic()
            kept = results["sections"].setdefault(name, {})[part] = {}
            for key, found in _part(name, part, folder, only, limit):
                kept[key] = found
                well &= not key.startswith("failed: ")
                print(f"{name} | {key} | {json.dumps(_rounded(found), ensure_ascii=False)}", flush=True)
                _save(out, results)
            print(f"{name} | {part} | took {time.monotonic() - began:.1f} s", flush=True)
    return well


def _part(
    name: str, part: str, folder: Path, only: list[str], limit: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The results of one part as they come; the last is `failed: PART` where its process did not end well."""
    command = [sys.executable, "-m", "bench.fullsize", "section", name, part, str(folder)]
    command += ["--only", ",".join(only)] if only else []
    variables = os.environ | {STARTED: str(time.time()), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    # Without it OpenMP's threads spin, and slow what else runs on a machine without a GPU.
    variables.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(MARK):
                    yield tuple(json.loads(line[len(MARK) :]))
                else:
                    said = [*said[1 - TAIL :], line.rstrip()]
            code = process.wait()
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    if code:
        yield f"failed: {part}", {"exit status": code, "said": said}


def _save(out: Path, results: dict[str, Any]) -> None:
    unfinished = out.with_suffix(".part")
    unfinished.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(out)


def _setting() -> str:
    if not torch.cuda.is_available():
        return setting("No GPU.")
    host = psutil.virtual_memory()
    properties = torch.cuda.get_device_properties(0)
    return setting(
        f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}.",
        f"Host memory {host.total / 1e9:.0f} GB, {host.available / 1e9:.0f} GB of it available.",
        "Random weights of the true shapes; files from the page cache.",
    )


def _rounded(value: Any) -> Any:
    """For the eye: floats with four digits."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
