"""What `run` found as one Markdown table, and the setting it was found in. Computes nothing but units and
shares; what failed or was skipped stands there in its own words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.support.table import table

Row = tuple[str, str, str, str]
Kept = dict[str, dict[str, Any]]


def report(results: Path) -> str:
    """The table. results: the file that `run` wrote.

    Raises:
        SystemExit: there is no such file.
    """
    if not results.exists():
        raise SystemExit(
            f"{results} doesn't exist: `python -m bench.fullsize run FOLDER --out {results}` writes it."
        )
    found = json.loads(results.read_text(encoding="utf-8"))
    rows: list[tuple[str, ...]] = [("", "case", "figure", "beside it")]
    for name, rows_of in ROWS.items():
        parts = found["sections"].get(name, {})
        kept = {key: value for part in parts.values() for key, value in part.items()}
        rows += rows_of({key: value for key, value in kept.items() if not _apart(key, value)})
        rows += [
            (f"**{name}**", key.removeprefix("failed: "), _apart(key, value), "")
            for key, value in kept.items()
            if _apart(key, value)
        ]
    return "\n".join([*found["settings"], table("The real models at full size", rows)])


def _apart(key: str, value: dict[str, Any]) -> str:
    """Why there is no figure, in words; empty where there is one."""
    if "skipped" in value:
        return f"skipped: {value['skipped']}"
    if key.startswith("failed: "):
        last = value["said"][-1] if value["said"] else "it said nothing"
        return f"failed, exit status {value['exit status']}: {last}".replace("|", "/")
    return ""


def _cold(kept: Kept) -> Iterator[Row]:
    for part, one in kept.items():
        if "to first preview" in one:
            phases = [
                f"{name} {_seconds(one[name])}"
                for name in (
                    "python",
                    "imports",
                    "engine",
                    "before loading",
                    "loading",
                    "encoding",
                    "first step and preview",
                )
                if name in one
            ]
            yield (
                "**cold**",
                f"{part}, {one['model']}: process to first preview; without imports",
                f"{_seconds(one['from the process'])}; {_seconds(one['without imports'])}",
                ", ".join(phases),
            )
            if "GB/s" in one:
                yield (
                    "**cold**",
                    f"{part}, loading",
                    f"{one['GB/s']:.2f} GB/s",
                    f"{one['GB']:.1f} GB of files",
                )
        else:
            speeds = [
                f"{name} {value:.2f}".removeprefix("GB/s ") for name, value in one.items() if name != "GB"
            ]
            yield "**cold**", f"{part}: the same files", ", ".join(speeds) + " GB/s", f"{one['GB']:.1f} GB"


def _switch(kept: Kept) -> Iterator[Row]:
    for key, one in kept.items():
        where, what = key.split(": ", 1)
        where = "resident" if where == "gpu" else "from host memory"
        if what == "memory":
            shares = [
                f"{name} {after / before - 1:+.1%}"
                for name, before in one["before"].items()
                if before and (after := one["after"].get(name)) is not None
            ]
            sizes = [f"{name} {value / 1e9:.2f} GB" for name, value in one["before"].items()]
            yield (
                "**switch**",
                f"memory after {one['switches']} changes, {where}",
                ", ".join(shares),
                ", ".join(sizes),
            )
            continue
        encoding, step = one["to encoding"], one["to first step"]
        figure = f"{_ms(encoding.get('median'))}, at most {_ms(encoding.get('max'))}"
        yield (
            "**switch**",
            f"{what}, {where} ({one['plan']}): to encoding",
            figure,
            f"to its first step {_ms(step['median'])}, at most {_ms(step['max'])}; without a change "
            f"{_ms(one['to first step, same model'])}",
        )


def _cards(kept: Kept) -> Iterator[Row]:
    for key, one in kept.items():
        card, model = key.split(": ", 1)
        if one["phase"] != "finished":
            yield f"**{card}**", model, one.get("error", one["phase"]), one["plan"]
            continue
        beside = [
            f"{_seconds(one['second picture'])} for {one['steps']} steps, loaded; the first "
            f"{_seconds(one['first picture'])}",
            f"two runs differ by {one['two runs']:.2f}",
        ]
        if "to the whole card" in one:
            beside.append(f"from the whole card's picture by {one['to the whole card']:.2f} of 255")
        beside += [f"“{warning}”" for warning in one["warnings"]]
        figure = f"{one['plan']}: peak {one['allocated']:.1f} GB, reserved {one['reserved']:.1f} GB"
        yield f"**{card}**", model, figure, "; ".join(beside)


def _stop(kept: Kept) -> Iterator[Row]:
    step = kept.get("step", {}).get("step")
    for phase, one in kept.items():
        if phase == "step":
            continue
        ended = ", ".join(f"{count} {how}" for how, count in one["ended"].items())
        figure = f"{_ms(one['median'])}, at most {_ms(one['max'])}"
        yield "**stop**", f"while {phase}", figure, f"{ended}; a step takes {_ms(step)}"


def _preview(kept: Kept) -> Iterator[Row]:
    for one in kept.values():
        if "with" not in one:
            yield "**preview**", "cost of a step's", one.get("error", one["phase"]), ""
            continue
        each = ", ".join(f"{share:+.1%}" for share in one["each"])
        beside = f"{_ms(one['with'])} a step, {_ms(one['without'])} without; pairs: {each}"
        yield "**preview**", f"cost per step, {one['model']}", f"{one['extra']:+.2%}", beside


def _oom(kept: Kept) -> Iterator[Row]:
    for key, one in kept.items():
        figure = f"{one['phase']} on plan {one.get('plan', 'unknown')}"
        beside = [f"“{warning}”" for warning in one["warnings"]]
        if "out of memory" in one:
            beside.insert(0, f"out of memory {one['out of memory']} times")
        if "to the usual picture" in one:
            beside.append(f"differs from the usual picture by {one['to the usual picture']:.2f} of 255")
        if "memory" in one:
            beside.append(", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in one["memory"].items()))
        if "error" in one:
            beside.append(one["error"])
        yield "**out of memory**", key, figure, "; ".join(beside)


def _steps(kept: Kept) -> Iterator[Row]:
    for model, one in kept.items():
        if "ours" not in one:
            yield "**steps**", model, one.get("error", one["phase"]), ""
            continue
        ours, plain, ratio = one["ours"], one["diffusers"], one["ratio"]
        yield (
            "**steps**",
            f"{model}, {one['size']}, {one['steps']} steps, guidance {one['guidance']:g}",
            f"{_ms(ours['step'])} a step, encoding {_ms(ours['encode'])}, decoding {_ms(ours['decode'])}",
            f"plain diffusers {_ms(plain['step'])}, {_ms(plain['encode'])}, {_ms(plain['decode'])}: a step "
            f"{ratio.get('step', 0):.3f}×, a picture {ratio.get('whole', 0):.3f}×; pictures differ by "
            f"{one[DIFFERENCE]:.2f} of 255",
        )


def _growth(kept: Kept) -> Iterator[Row]:
    for part, one in kept.items():
        first, last = one["looks"][0], one["looks"][-1]
        names = [
            name for name in ("anonymous", "trimmed", "allocated", "tensors", "objects") if first.get(name)
        ]
        shares = ", ".join(f"{name} {last[name] / first[name] - 1:+.1%}" for name in names)
        sizes = ", ".join(f"{look['anonymous'] / 1e9:.2f}" for look in one["looks"])
        what = f"{one['model']}, {one['drawings']} drawings, {part}"
        yield "**growth**", what, shares, f"anonymous memory {sizes} GB"


def _workers(kept: Kept) -> Iterator[Row]:
    for key, one in kept.items():
        if "ready" in one:
            yield (
                "**workers**",
                f"{one['model']}, drawn by {WHO[key]}: start to ready, loaded; a step",
                f"{_seconds(one['ready'])}; {_ms(one['step'])}",
                f"first event {_ms(one['first event'])}, a picture {_seconds(one['whole'])}; "
                + _sizes(one["memory"]),
            )
        elif "times" in one:
            yield (
                "**workers**",
                f"stop over HTTP while denoising, {one['times']} times",
                f"{_ms(one['median'])}, at most {_ms(one['max'])}",
                ", ".join(one["ended"]),
            )
        elif "worker gone" in one:
            yield (
                "**workers**",
                f"{key}: until its worker is gone; until the GPU is free",
                f"{_seconds(one['worker gone'])}; {_seconds(one['GPU free'])}",
                "the worker lives" if one["lives"] else "",
            )
        else:
            beside = [f"same pixels: {'yes' if one['same pixels'] else 'no'}"] if "same pixels" in one else []
            beside += [one["error"]] if "error" in one else []
            times = ""
            if "to its end" in one:
                times = f", its next step after {_seconds(one['to its next step'])}, its end "
                times += f"after {_seconds(one['to its end'])}"
            yield "**workers**", key, one["phase"] + times, "; ".join(beside)


WHO = {"worker": "a worker", "this process": "the server itself"}


def _sizes(taken: dict[str, list[float | None]]) -> str:
    return "; ".join(
        f"{who}: {'no' if gpu is None else f'{gpu / 1e9:.2f} GB of'} GPU, {host / 1e9:.2f} GB of the host"
        for who, (gpu, host) in taken.items()
    )


DIFFERENCE = "to diffusers' picture"
ROWS: dict[str, Callable[[Kept], Iterator[Row]]] = {
    "cold": _cold,
    "switch": _switch,
    "cards": _cards,
    "plans": _cards,
    "stop": _stop,
    "preview": _preview,
    "oom": _oom,
    "steps": _steps,
    "growth": _growth,
    "workers": _workers,
}


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} s"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value * 1000:,.1f} ms"
