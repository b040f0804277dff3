"""`stepwise draw`: from the options to a request, and from its events to a bar, lines of JSON and files."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import warnings
from typing import Any

from cli.bar import Bar
from cli.errors import FileError, Interrupted, OutputLost, UsageError
from cli.files import Target
from cli.sources import Drawing, Progress, source
from cli.terminal import put, say
from pipeline.catalog.paths import owner_path
from pipeline.errors import InvalidRequest, StepwiseError, quoted
from pipeline.parameters import MAX_PROMPT, parameters
from pipeline.recipe import read_recipe
from pipeline.request import GenerationRequest

LONGEST_PROMPT = 4 * MAX_PROMPT
"""Bytes of standard input: of UTF-8, as many as that many characters may take."""


def draw(options: argparse.Namespace) -> int:
    """Draws one job, shows it, writes its pictures; gives the exit code, its reason said.

    Raises:
        Interrupted: once the drawing has stopped. StepwiseError: every other reason not to draw.
    """
    if options.json and options.output == "-":
        raise UsageError("--json and --output - both want standard output; choose one.")
    values = requested(options)
    images = values.get("images") or 1
    target = Target(options.output, images)
    GenerationRequest.parse(values)  # what is wrong whatever the model is said before anything is loaded
    target.ensure_writable(images)
    if not options.verbose:
        warnings.simplefilter("ignore")  # libraries' remarks to programmers, in the middle of our bar
    with Bar(_terminal(options)) as bar:
        bar.show("connecting" if options.server else "starting")
        info, pictures = _follow(source(options.server).start(values), bar, options)
        at = Progress.model_validate(info)
        if at.phase == "finished":
            try:
                info["files"] = target.save(pictures, at.prompt, at.seed)
            except FileError as error:
                at.phase = info["phase"] = "failed"
                at.error = info["error"] = str(error)
            else:
                bar.finished(f"drawn in {at.seconds:.1f} s, seed {at.seed}")
    _end(info, options)
    if not options.quiet:
        for warning in at.warnings:
            say(f"note: {warning}")
    if at.phase != "finished":
        say(at.error or "The drawing was stopped by someone else.")
        return 1
    if not options.json:
        for path in info["files"]:
            put(path)
    return 0


def requested(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters that the options mean; those that weren't given are left out.

    Raises:
        UsageError, InvalidRequest, FileError.
    """
    values: dict[str, Any] = {}
    if options.again is not None:
        values |= _recipe(options.again)
    if options.prompt is not None:
        values["prompt"] = _from_stdin() if options.prompt == "-" else options.prompt
    if "prompt" not in values:
        raise UsageError("What shall be drawn? Give a prompt, or - to read it from standard input.")
    given = {one.name: getattr(options, one.name) for one in parameters() if one.flag}
    if options.size is not None:
        if options.width is not None or options.height is not None:
            raise UsageError("--size says width and height already; leave out --width and --height.")
        given["width"], given["height"] = _size(options.size)
    return values | {name: value for name, value in given.items() if value is not None}


def _size(text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", text, re.IGNORECASE)
    if sides is None:
        raise UsageError(f"--size must be width x height in pixels, such as 512x512; got {quoted(text)}.")
    return int(sides[1]), int(sides[2])


def _recipe(path: str) -> dict[str, Any]:
    try:
        picture = owner_path(path)
    except ValueError as error:
        raise UsageError(f"--again: {error}.") from None
    try:
        return read_recipe(picture).model_dump(exclude_none=True)
    except InvalidRequest as error:
        raise InvalidRequest({"again": f"{path}: {error}"}) from None
    except OSError as error:
        raise FileError(f"{path} can't be read: {error.strerror or error}.") from error


def _from_stdin() -> str:
    if sys.stdin is None:
        raise UsageError("The prompt - means standard input, and that is closed.")
    text = sys.stdin.buffer.read(LONGEST_PROMPT + 1)
    if len(text) > LONGEST_PROMPT:
        raise InvalidRequest({"prompt": f"prompt may be at most {MAX_PROMPT:,} characters long."})
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest({"prompt": "prompt on standard input is not UTF-8 text."}) from None


def _terminal(options: argparse.Namespace) -> Any:
    """Where the bar goes: standard error, if someone looks at it."""
    shown = not options.quiet and sys.stderr is not None and sys.stderr.isatty()
    return sys.stderr if shown else None


def _follow(
    drawing: Drawing, bar: Bar, options: argparse.Namespace
) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """Shows a drawing's events and gives its last. An interruption, or a reader who has gone, stops it."""
    try:
        return _last(drawing, bar, options)
    except Interrupted:  # a second one, from here on, ends the process at once
        bar.show("stopping")
        drawing.stop()
        with contextlib.suppress(StepwiseError):  # a server that has gone has stopped, too
            info, _ = _last(drawing, bar, options)
            _end(info, options)
        raise
    except (BrokenPipeError, OutputLost):
        drawing.stop()
        raise


def _last(
    drawing: Drawing, bar: Bar, options: argparse.Namespace
) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    for info, pictures in drawing.events():
        at = Progress.model_validate(info)
        if at.last:
            return info, pictures
        bar.progress(at)
        if options.json:
            put(json.dumps(info))
    raise AssertionError("a drawing's events end with a last one")


def _end(info: dict[str, Any], options: argparse.Namespace) -> None:
    """The last line of JSON: with the files that were written."""
    if options.json:
        put(json.dumps(info | {"files": info.get("files", [])}))
