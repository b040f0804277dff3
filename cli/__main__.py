"""The commands and their options, and the exit code of each way to end. What a command does stands in the
module of its name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from cli.errors import Interrupted, OutputLost, UsageError
from cli.terminal import listen, mute_threads, put, say
from pipeline import __version__
from pipeline.errors import InvalidRequest, ModelUnavailable, StepwiseError
from pipeline.parameters import Parameter, instead, parameters
from pipeline.proxies import use_proxies

FAILED, REFUSED, CLOSED = 1, 2, 141
"""Exit codes: it failed; a parameter or the command line is wrong; nobody reads the output any more (128 +
SIGPIPE, as of any tool that the shell ends so). Interrupted: 128 + the signal."""
NAMES = {one.name: one.flag for one in parameters() if one.flag} | {
    "size": "--size",
    "prompt": "the first argument",
    "output_format": "the ending of --output",
}
"""What `instead` may say of `draw`."""
ROOMS = ("api", "app", "cli", "environment", "jobs", "pipeline", "settings", "ui")
"""Our own modules: a missing one is a bug, any other isn't installed."""
INSTALL = (
    "Run `make run` once in Stepwise's folder: it installs all that is needed, and Ctrl-C ends it once it "
    "prints an address."
)
SERVER = (
    "another Stepwise instead of this machine: its address (http://…), or a Space (owner/name); HF_TOKEN "
    "opens a private one"
)
NUMBERS = {"whole": int, "seed": int, "number": float}
"""What makes a value of a word, by the parameter's kind."""
DRAW = """Draws a prompt with this machine's engine, or with another Stepwise (--server), and writes the
finished pictures. Bounds and defaults differ between models: `stepwise models` lists them."""
CODES = """exit codes: 0 drawn; 1 failed; 2 wrong usage or a refused parameter; 130 Ctrl-C; 143 SIGTERM"""


def parser() -> argparse.ArgumentParser:
    """The command line's options. `command` is the function to call with them."""
    stepwise = argparse.ArgumentParser(
        prog="stepwise", description="Draws with Stable Diffusion 3.5.", allow_abbrev=False
    )
    stepwise.add_argument("--version", action="version", version=f"stepwise {__version__}")
    commands = stepwise.add_subparsers(title="commands", metavar="COMMAND", required=True)

    # Abbreviated options would change their meaning with the next option that is added.
    add_command = partial(commands.add_parser, allow_abbrev=False)

    draw = add_command("draw", help="draw a picture", description=DRAW, epilog=CODES)
    draw.set_defaults(command=_draw)
    add = draw.add_argument
    add("prompt", nargs="?", help="what to draw; - reads it from standard input")
    add("-o", "--output", metavar="FILE", help="a .png, .jpg or .webp, a folder, or - for standard output")
    for parameter in parameters():
        if parameter.flag:
            add(
                parameter.flag,
                dest=parameter.name,
                type=NUMBERS.get(parameter.kind, str),
                metavar=parameter.metavar,
                help=_help(parameter),
            )
    add("--size", metavar="WxH", help="width and height at once: 512x512")
    add("--again", metavar="PNG", help="take everything that isn't given from this picture's recipe")
    add("--server", metavar="WHERE", help=SERVER)
    add("--json", action="store_true", help="print every event as a line of JSON")
    add("-q", "--quiet", action="store_true", help="no progress bar and no notes; errors only")
    add("-v", "--verbose", action="store_true", help="print the log, with its tracebacks")

    models = add_command(
        "models", help="list the models", description="Lists the models; * marks the default."
    )
    models.set_defaults(command=_models)
    models.add_argument("--server", metavar="WHERE", help=SERVER)
    models.add_argument("--json", action="store_true", help="print the list as the API's /models gives it")

    serve = add_command(
        "serve",
        help="serve the page and the API",
        description="Serves the page and the API, as `python app.py` does, until Ctrl-C or SIGTERM.",
    )
    serve.set_defaults(command=_serve)
    serve.add_argument("--host", help="where to listen, if not GRADIO_SERVER_NAME or 127.0.0.1")
    serve.add_argument("--port", type=int, help="GRADIO_SERVER_PORT or the first free one from 7860 on")
    return stepwise


def _help(parameter: Parameter) -> str:
    """What the help says of a parameter's option; that defaults are the model's stands above them all."""
    default = "" if parameter.models_default else f" (if not given: {parameter.without})"
    return f"{parameter.short}{default}"


# Each command's module is imported by its command: what they import takes from tenths of a second to several.


def _draw(options: argparse.Namespace) -> int:
    if not options.verbose:
        mute_threads()
    listen()
    _use_proxies()
    from cli.draw import draw

    return draw(options)


def _models(options: argparse.Namespace) -> int:
    mute_threads()
    listen()
    _use_proxies()
    from cli.models import models

    return models(options)


def _use_proxies() -> None:
    for words in use_proxies():
        say(words)


def _serve(options: argparse.Namespace) -> NoReturn:
    from cli.serve import serve

    serve(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code; whatever went wrong has been said.

    Args:
        arguments: the words after `stepwise`; None: this process's own.

    Raises:
        SystemExit: from argparse (--help, --version, wrong usage), and from the app's start.
    """
    options = _parsed(arguments)
    try:
        return options.command(options)
    except Interrupted as interruption:
        return interruption.status
    except KeyboardInterrupt:  # of `serve`, before the app listens to signals itself
        return Interrupted(signal.SIGINT).status
    except BrokenPipeError:
        return CLOSED
    except OutputLost as error:
        say(str(error))
        return FAILED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ROOMS:
            raise
        return _failed(options, f"The package {package} is not installed. {INSTALL}", FAILED)
    except StepwiseError as error:
        refused = isinstance(error, InvalidRequest | ModelUnavailable | UsageError)
        return _failed(options, str(error), REFUSED if refused else FAILED)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    stepwise = parser()
    options, unknown = stepwise.parse_known_args(arguments)
    if unknown:
        draws = options.command is _draw
        hints = [instead(one.partition("=")[0], NAMES) for one in unknown if draws and one.startswith("--")]
        stepwise.error(
            f"unrecognized arguments: {' '.join(unknown)}{'.' if any(hints) else ''}{''.join(hints)}"
        )
    return options


def _failed(options: argparse.Namespace, words: str, code: int) -> int:
    say(words)
    if getattr(options, "json", False):
        try:
            put(json.dumps({"error": words}))
        except (BrokenPipeError, OutputLost):
            return FAILED
    return code


def run() -> None:
    """`main`, and the end of the process."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it; what was worth saying has been tried
            if stream is not None:
                stream.flush()
    # Not sys.exit: it would wait for threads that may be in the middle of a step, or listening to a server
    # that no longer answers. All that should outlive this process has been written.
    os._exit(code)


if __name__ == "__main__":
    run()
