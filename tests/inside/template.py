"""The process behind tests.support.programs: it imports the libraries once, and forks for each program it is
asked for. Nothing of ours is imported here: a fork runs all of our code anew, in its own environment.

Libraries read some environment variables while they are imported; those are the template's. So is
/proc/PID/environ. All else of a fork is as of a process that Python started.

A server that is to have workers gets a template of its own, so that they are its children: a second fork,
made before the server's first line.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import sys
import termios
import time
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

LIBRARIES: dict[str, Sequence[str]] = {
    "gradio": (),
    "gradio.mcp": (),
    "gradio_client": (),
    "torch": (),
    "accelerate": (),
    "diffusers": (
        "AutoencoderKL",
        "FlowMatchEulerDiscreteScheduler",
        "SD3Transformer2DModel",
        "StableDiffusion3Pipeline",
    ),
    "diffusers.hooks": ("HookRegistry", "apply_group_offloading"),
    "diffusers.hooks.group_offloading": (),
    "diffusers.loaders.single_file_model": (),
    "transformers": ("CLIPTextModelWithProjection", "CLIPTokenizer", "T5EncoderModel", "T5Tokenizer"),
    "huggingface_hub": ("AsyncInferenceClient", "get_token", "snapshot_download", "whoami"),
    "authlib.integrations.starlette_client": (),
    "limits.storage": (),
    "limits.strategies": (),
    "mcp.server.lowlevel": (),
    "mcp.server.streamable_http_manager": (),
    "prometheus_client": (),
    "pydantic_settings": (),
    "ruamel.yaml": (),
    "uvicorn.protocols.http.h11_impl": (),
    "uvicorn.protocols.http.httptools_impl": (),
}
"""What our programs import, and which names of those that import lazily."""
INTERFACES = Path(__file__).parent.parent.parent / "api" / "gradio" / "interfaces.py"
_NAMED = os.environ.get("PYTHONPATH", "").split(os.pathsep)
LIBRARIES_PATH = [folder for folder in sys.path[1:] if folder not in _NAMED]
workers: socket.socket | None = None
"""The way to ask for workers, in a program that may."""
_SPARE = 200
"""File descriptors from here on are free in the template."""


def serve(descriptor: int) -> None:
    """Forks as the socket of this number asks, until its other end is closed. Doesn't return: the template
    ends here, and each fork with its program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who run the tests
    runpy.run_path(str(INTERFACES))["leave_interfaces"]()  # as app.py does, and by a module of no name
    for name, attributes in LIBRARIES.items():
        with contextlib.suppress(ModuleNotFoundError):  # authlib, httptools: where they are installed
            module = importlib.import_module(name)
            for attribute in attributes:
                getattr(module, attribute)
    gc.collect()
    gc.freeze()  # for good: a collection in a fork doesn't write to what all of them share
    asked = _until_asked(socket.socket(fileno=descriptor))
    if asked["environment"].get("STEPWISE_WORKERS", "0") != "0":
        asked = _with_template(asked)
    run(asked["program"])


def _with_template(asked: dict[str, Any]) -> dict[str, Any]:
    """Forks a template for this program, which finds the way to ask it in `workers`.

    Returns:
        In the program: what was asked of it. In a fork of that template: what is asked of that one.
    """
    global workers
    ours, its = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return _until_asked(its)
    its.close()
    workers = ours
    return asked


def _until_asked(requests: socket.socket) -> dict[str, Any]:
    """Forks as this socket asks, until its other end is closed, and ends then.

    Returns:
        In a fork: what was asked of it.
    """
    with requests:
        asked = _until_forked(requests)
    if asked is None:
        os._exit(0)
    return asked


def _until_forked(requests: socket.socket) -> dict[str, Any] | None:
    """Answers each request with the process id of its fork.

    Returns:
        In a fork: what was asked of it. In the template: None, at the end.
    """
    while length := requests.recv(8, socket.MSG_WAITALL):
        message, files = _receive(requests, int.from_bytes(length, "big"))
        asked = json.loads(message)
        ours, its = os.pipe()
        # Forked twice: a process whose parent has ended is the child of the nearest subreaper above, which is
        # the one that asks.
        if (between := os.fork()) == 0:
            parent = os.getpid()
            if (pid := os.fork()) != 0:
                os.write(its, pid.to_bytes(8, "big"))
                os._exit(0)
            while os.getppid() == parent:
                time.sleep(0.001)
            os.close(ours)
            os.close(its)
            requests.close()  # first: its number may be that of a file which is passed
            become(asked, files)
            return asked
        os.waitpid(between, 0)
        requests.sendall(os.read(ours, 8))
        for file in (ours, its, *files):
            os.close(file)
    return None


def _receive(requests: socket.socket, length: int) -> tuple[bytes, list[int]]:
    """One message and the open files that came with it."""
    files = array.array("i")
    message, ancillary, _, _ = requests.recvmsg(length, socket.CMSG_SPACE(64 * files.itemsize))
    for _, _, data in ancillary:
        files.frombytes(data)
    while len(message) < length:
        message += requests.recv(length - len(message), socket.MSG_WAITALL)
    return message, list(files)


def _keep_current(event: str, values: tuple[Any, ...]) -> None:
    """An audit hook: Gradio and its client copy this variable while they are imported, which in a program
    that Python started comes after it was set."""
    if event == "os.putenv" and os.fsdecode(values[0]) == "GRADIO_TEMP_DIR":
        for module in list(sys.modules.values()):
            if "DEFAULT_TEMP_DIR" in vars(module):
                module.DEFAULT_TEMP_DIR = os.fsdecode(values[1])  # type: ignore[attr-defined]


def become(asked: dict[str, Any], files: list[int]) -> None:
    """Gives this fork the files, session, folder and environment that Popen gives its child."""
    for at, file in enumerate(files):
        os.dup2(file, _SPARE + at)
        os.close(file)
    for at, number in enumerate(asked["files"]):
        os.dup2(_SPARE + at, number)
        os.close(_SPARE + at)
    if asked["session"]:
        os.setsid()
    if asked["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(asked["folder"])
    if asked["program"][0] != "-c":
        sys.addaudithook(_keep_current)
    os.environ.clear()
    os.environ.update(asked["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = sys.stdout.write_through  # as PYTHONUNBUFFERED says
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        how = ("wb", 0 if unbuffered else -1) if number else ("rb", -1)
        stream = io.TextIOWrapper(
            io.open(number, *how, closefd=False),  # type: ignore[call-overload]  # noqa: SIM115, UP020
            encoding=before.encoding,
            errors=before.errors,
            line_buffering=not unbuffered and (number == 2 or os.isatty(number)),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _show(words: Sequence[str]) -> None:
    """Writes these into what /proc/PID/cmdline shows, for which the template's has room."""
    numbers = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    start, end = map(int, numbers[45:47])  # arg_start and arg_end of proc_pid_stat(5), which has 48 and 49
    shown = "\0".join(words).encode("utf-8", "surrogateescape")[: end - start - 1]
    ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)


def run(program: Sequence[str]) -> None:
    """Runs what follows `python` on a command line, a file, -m and a module or -c and code, in the module
    `__main__`; raises what it raises, with which Python then ends as it does."""
    first, *words = program
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    safe = sys.flags.safe_path or os.environ.get("PYTHONSAFEPATH")
    folder = str(Path.cwd() if first == "-m" else Path(first).resolve().parent) if first != "-c" else ""
    sys.path[:] = [*([] if safe else [folder]), *filter(None, named), *LIBRARIES_PATH]
    sys.argv[:] = [first, *words]
    sys.orig_argv[:] = [sys.executable, *program]
    _show(sys.orig_argv)
    del sys.modules["sitecustomize"]
    importlib.import_module("sitecustomize")  # the first one on the path, as at Python's own start
    main = sys.modules["__main__"].__dict__
    for name in set(main) - {"__name__", "__builtins__", "__doc__", "__package__", "__loader__", "__spec__"}:
        del main[name]
    if first == "-m":
        module, *sys.argv[1:] = words
        runpy._run_module_as_main(module)  # type: ignore[attr-defined]  # what Python itself calls for -m
    elif first == "-c":
        code, *sys.argv[1:] = words
        exec(code, main)
    else:
        main |= {"__file__": first, "__cached__": None, "__loader__": SourceFileLoader("__main__", first)}
        exec(compile(Path(first).read_bytes(), first, "exec"), main)
    sys.exit()
