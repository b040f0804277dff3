"""Starting threads. The system may refuse one (its limit of threads or of memory is reached): whoever has
taken something for the thread to give back, gives it back then.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from pipeline.errors import Busy


def start_thread(
    name: str, target: Callable[..., Any], *args: Any, in_context: bool = False
) -> threading.Thread:
    """Runs this in a daemon thread, and returns the thread.

    Args:
        in_context: whether it runs in a copy of the caller's context.

    Raises:
        Busy: the system gives this process no more threads.
    """
    if in_context:
        target, args = contextvars.copy_context().run, (target, *args)
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise Busy("The server's machine gives it no more threads, so nothing more can be begun.") from error
    return thread
