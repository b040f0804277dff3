"""Stepwise: draws with Stable Diffusion 3.5 and shows every step. The Space's entry point.

    python app.py

serves the page and the API; see README.md for the settings.
"""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Drawing on a CPU: libgomp's threads spin while they wait, and hold up the streaming of the previews.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import argparse
import signal
import sys

from pydantic import ValidationError

from api.refusals import HANDLERS
from pipeline.catalogue import read_catalogue
from pipeline.engine import Engine
from pipeline.errors import StepwiseError
from settings import Settings
from ui.page import build_page, launch_options

MOST_CALLS = 1000
"""Calls that Gradio has in hand at once. Its 40 (`max_threads`, 6.31) bounds async functions too, which
need no thread: the 41st caller would wait in Gradio's queue, before ours and unseen by it."""


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        settings = Settings()
        engine = Engine(
            read_catalogue(settings.models), settings.device, settings.threads, settings.max_waiting
        )
    except (StepwiseError, ValidationError) as error:
        sys.exit(str(error))
    if engine.catalogue[engine.default_model].local:
        engine.preload(engine.default_model)  # ready before the first visitor has typed a prompt
    demo = build_page(engine, settings.keep_hours)
    # Ends as on Ctrl-C, which lets Gradio delete the pictures it served.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    demo.queue(api_open=False, max_size=MOST_CALLS, default_concurrency_limit=None)
    # Gradio (6.31) looks for work 1,000 times a second: 3 % of a core at rest, and as many interruptions
    # of a drawing. It is started within 20 ms this way; progress bars of its own we have none.
    demo._queue.sleep_when_free = 0.02
    demo._queue.progress_update_sleep_when_free = 0.1
    demo.launch(**launch_options(), max_threads=MOST_CALLS, app_kwargs={"exception_handlers": HANDLERS})


if __name__ == "__main__":
    main()
