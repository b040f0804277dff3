"""A rehearsal at full size: the app's own engine over checkpoints of the real models' shapes.

    python -m bench.fullsize make FOLDER            random weights, 49 GB (all four models: 69)
    python -m bench.fullsize run FOLDER             measures, section by section, into results.json
    python -m bench.fullsize report results.json    the one table

Random weights cost what trained ones cost; what they draw is noise. With `--shapes tiny` everything that
makes sense without a GPU runs on any machine in a few minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.fullsize.sections import SECTIONS, section

MODELS = {
    "large": "sd3.5-large",
    "turbo": "sd3.5-large-turbo",
    "medium": "sd3.5-medium",
    "z-image": "z-image-turbo",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fullsize",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("make", "run", "section"):
        command = commands.add_parser(name)
        if name == "section":  # what a process of `run` is told
            command.add_argument("section", choices=SECTIONS)
            command.add_argument("part")
        command.add_argument("folder", type=Path)
        command.add_argument(
            "--only", type=_models, default=[], help=f"of {','.join(MODELS)}; all if not given"
        )
        if name == "make":
            command.add_argument("--shapes", choices=("full", "tiny"), default="full")
        if name == "run":
            command.add_argument(
                "--sections", type=_sections, default=list(SECTIONS), help=",".join(SECTIONS)
            )
            command.add_argument("--out", type=Path, default=Path("results.json"))
            command.add_argument("--limit", type=float, default=540, help="seconds a part (default 540)")
    commands.add_parser("report").add_argument("results", type=Path)
    arguments = parser.parse_args()

    if arguments.command == "make":
        from bench.fullsize.make import make

        make(arguments.folder, arguments.shapes, arguments.only)
        return 0
    if arguments.command == "report":
        from bench.fullsize.report import report

        print(report(arguments.results))
        return 0
    folder = arguments.folder.resolve()
    if arguments.command == "section":
        section(arguments.section, arguments.part, folder, arguments.only)
        return 0
    from bench.fullsize.run import run

    return 0 if run(folder, arguments.sections, arguments.only, arguments.out, arguments.limit) else 1


def _models(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in MODELS and name not in MODELS.values()]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(MODELS)}")
    return [MODELS.get(name, name) for name in names]


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
