"""Where Stepwise reaches into Python."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "3.11"

PATCHES = (
    Patch(
        "python",
        "api/server/shutdown.py",
        "atexit._run_exitfuncs()",
        "`atexit._run_exitfuncs`",
        "`os._exit` runs nothing that was registered, and the interpreter's own end aborts in C++ threads",
        "tests/contracts/test_python.py::test_what_was_registered_for_the_end_can_be_run",
    ),
    Patch(
        "python",
        "api/gradio/unread.py",
        "class Messages(asyncio.Queue[Any])",
        "`asyncio.Queue._init`, `._put`, `._get`, `._queue`",
        "Gradio puts messages in without waiting, so that the queue itself has to leave some out",
        "tests/contracts/test_python.py::test_a_queues_storage_can_be_replaced",
    ),
)
