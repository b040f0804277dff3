"""Compares two checkouts of Stepwise by the same command: `--before FOLDER` runs it there and here, whole
runs in turns, so that both meet the same load. Each checkout runs its own benchmark on its own code; what is
read are the tables that they print.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median

from bench.support.table import ROOT, table

Cells = dict[tuple[str, str, str], str]
"""What a run printed, by the table's title, the row's label and the column's name."""
_NUMBER = re.compile(r"[+-]?(?<![A-Za-z\d])\d+(?:,\d{3})*(?:\.\d+)?")
"""Not what a letter stands before, as in p95."""


def parse_or_compare(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line of a benchmark, which may ask to be compared with another checkout: that is done here,
    and ends the process."""
    parser.add_argument(
        "--before", type=Path, metavar="FOLDER", help="another checkout, to compare this with"
    )
    parser.add_argument("--turns", type=int, default=3, help="whole runs of each, with --before (default 3)")
    asked = parser.parse_args()
    if asked.before is None:
        return asked
    ours = argparse.ArgumentParser(add_help=False)
    ours.add_argument("--before", type=Path)
    ours.add_argument("--turns", type=int, default=3)
    _, others = ours.parse_known_args()
    print(compare(parser.prog.rpartition(".")[2], others, asked.before, asked.turns))
    sys.exit(0)


def compare(name: str, arguments: list[str], before: Path, turns: int) -> str:
    """Runs `python -m bench.NAME` in the folder `before` and in this checkout, in turns.

    Returns:
        The setting of the first run here, and the command's tables with a line for each of their figures: its
        median over the runs, before and now.

    Raises:
        SystemExit: a run failed.
    """
    found: dict[Path, list[Cells]] = {before.resolve(): [], ROOT: []}
    setting = ""
    for turn in range(turns):
        for folder in list(found)[:: 1 if turn % 2 else -1]:
            print(f"run {turn + 1} of {turns} in {folder.name}", file=sys.stderr, flush=True)
            printed = _run(name, arguments, folder)
            found[folder].append(read_tables(printed))
            if folder == ROOT:
                setting = setting or printed.partition("\n### ")[0].strip()
    old, new = found.values()
    keys = dict.fromkeys(key for run in (*new, *old) for key in run)
    tables = [
        table(title, _rows([key for key in keys if key[0] == title], old, new))
        for title in dict.fromkeys(title for title, _, _ in keys)
    ]
    return "\n".join([f"{setting} Runs of each, in turns: {turns}.", *tables])


def _run(name: str, arguments: list[str], folder: Path) -> str:
    command = [sys.executable, "-m", f"bench.{name}", *arguments]
    ended = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        raise SystemExit(f"`{' '.join(command[1:])}` in {folder} ended with {ended.returncode}.")
    return ended.stdout


def read_tables(printed: str) -> Cells:
    """The cells of all Markdown tables. A row's label is its first cell, and its second where that has no
    digit and others follow; a label's digits are no part of what it is called by."""
    cells: Cells = {}
    title, head = "", None
    seen: Counter[tuple[str, str]] = Counter()
    for line in printed.splitlines():
        if line.startswith("### "):
            title, head = _without_digits(line.removeprefix("### ")), None
        elif line.startswith("| "):
            row = line.removeprefix("| ").removesuffix(" |").split(" | ")
            if head is None:
                head = row
                continue
            labels = 2 if len(row) > 2 and not re.search(r"\d", row[1]) else 1
            label = ", ".join([row[0], *map(_without_digits, row[1:labels])])
            label = label if row[0].isdigit() else _without_digits(label)
            seen[title, label] += 1
            if (again := seen[title, label]) > 1:
                label += f" ({again})"
            for column, cell in zip(head[labels:], row[labels:], strict=False):
                cells[title, label, column] = cell
    return cells


def _without_digits(words: str) -> str:
    return _NUMBER.sub("…", words)


def _rows(keys: list[tuple[str, str, str]], old: list[Cells], new: list[Cells]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "", "before", "now", "now / before")]
    for key in keys:
        before, now = (_middle([run[key] for run in runs if key in run]) for runs in (old, new))
        rows.append((*key[1:], before, now, _ratio(before, now)))
    return rows


def _middle(cells: list[str]) -> str:
    """Each number of these cells as its median, where they differ in nothing else; else all there are."""
    if not cells:
        return "–"
    if len({_without_digits(cell) for cell in cells}) > 1:
        return "; ".join(dict.fromkeys(cells))
    numbers = iter(zip(*(_NUMBER.findall(cell) for cell in cells), strict=True))
    return _NUMBER.sub(lambda _: _median(next(numbers)), cells[0])


def _median(numbers: tuple[str, ...]) -> str:
    """As many decimals as they have themselves, and their sign and commas."""
    first = numbers[0]
    sign = "+" if first[0] in "+-" else ""
    decimals = len(first.partition(".")[2])
    return f"{median(_value(number) for number in numbers):{sign},.{decimals}f}"


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _ratio(before: str, now: str) -> str:
    """Of the first number of both, where they differ in nothing else; none of a number with a sign, which is
    a difference already."""
    first, second = _NUMBER.search(before), _NUMBER.search(now)
    if first is None or second is None or _without_digits(before) != _without_digits(now):
        return ""
    divisor = _value(first[0]) if first[0][0].isdigit() else 0
    return f"{_value(second[0]) / divisor:.2f}×" if divisor > 0 else ""
