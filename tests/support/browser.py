"""Launching Chromium for the page's tests and benchmarks: Playwright's own where it is installed, else the
distribution's. Knows nothing about the page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Playwright

DISTRIBUTIONS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
"""The best first: the shell is Chromium without the windows that a headless one never shows, and opens a page
in a new context for a quarter of the CPU time."""
QUIET = [  # no GPU and no talk to the outside: what a test sees must be the page's doing alone
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

EVERYWHERE = "--host-resolver-rules=MAP * 127.0.0.1"
"""Of Chromium's command line: every name leads to this machine, whatever its port."""


def launch_chromium(playwright: Playwright, *options: str) -> Browser:
    """A headless Chromium.

    Args:
        options: more of its command line.

    Raises:
        RuntimeError: there is none; says how to get one.
    """
    own = Path(playwright.chromium.executable_path).exists()
    found = None if own else next(filter(None, map(shutil.which, DISTRIBUTIONS)), None)
    if not own and found is None:
        raise RuntimeError(
            "There is no Chromium for the browser tests: run `.venv/bin/playwright install chromium`, or "
            "install the distribution's (`apt-get install chromium`)."
        )
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=found, args=[*QUIET, *as_root, *options])
