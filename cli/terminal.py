"""What goes to standard output and standard error, and the signals that end a command."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import Any

from cli.errors import Interrupted, OutputLost


def listen() -> None:
    """From now on SIGINT and SIGTERM raise Interrupted in the main thread, wherever it is. A signal that the
    shell had us ignore, as it does for a command in the background, stays ignored."""

    def interrupt(number: int, _: Any) -> None:
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def put(line: str) -> None:
    """A line of standard output, at once.

    Raises:
        BrokenPipeError: whoever read it has gone. OutputLost.
    """
    _write(f"{line}\n".encode(sys.stdout.encoding if sys.stdout else "utf-8", "backslashreplace"))


def put_bytes(data: bytes) -> None:
    """Bytes to standard output. Raises as `put`."""
    _write(data)


def _write(data: bytes) -> None:
    if sys.stdout is None:
        raise OutputLost("Standard output is closed.")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(f"Standard output can't be written: {error.strerror}.") from error


def say(words: str) -> None:
    """Words for the person, to standard error; nothing where there is none."""
    with contextlib.suppress(OSError):  # a broken pipe, a full disk: there is nowhere left to say so
        print(f"stepwise: {printable(words)}", file=sys.stderr, flush=True)


def printable(words: str) -> str:
    """Words without the characters that would make a terminal do something: a server's may hold any."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in words)


def mute_threads() -> None:
    """Only the main thread writes to standard error: gradio_client (2.7.2) prints a broken connection's
    traceback, and the engine's log a failed drawing's, from threads of their own, into our bar and beside our
    words for the same."""
    if sys.stderr is not None:
        sys.stderr = _MainThreads(sys.stderr)


class _MainThreads:
    """A stream that swallows what other threads write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread() is threading.main_thread():
            return self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
