"""Stepwise: draws with Stable Diffusion 3.5 and shows every step. The Space's entry point.

    python app.py

serves the page and the API; see docs/settings.md for the settings.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys

from api.server.startup import Started, start


def started() -> Started:
    """Read the command line and start the process: before the imports below, which take seconds.

    Raises:
        SystemExit: as of `start`, and from argparse.
    """
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    return start()


if __name__ == "__main__":
    STARTED = started()
    gc.disable()  # until the imports are done: a fifth of their time, and there is nothing to collect

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# After each event Gradio makes a pandas table of the last 10,000, for a dashboard that isn't served here.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", f"{sys.maxsize}")
os.environ["GRADIO_DEBUG"] = "0"  # with 1, `launch` waits for Ctrl-C itself, and hears no other end
# Drawing on a CPU: libgomp's threads spin while they wait, and hold up the streaming of the previews.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from api.gradio.interfaces import leave_interfaces

leave_interfaces()

if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  # first: it makes torch believe in a GPU that only its workers have

from typing import TYPE_CHECKING, NoReturn

from api.auth.browser_login import Site, space_host
from api.auth.keys import access_notice
from api.auth.login import Login
from api.auth.passwords import Accounts
from api.gradio.patches import no_app
from api.gradio.queue import MOST_SESSIONS, harden_queue
from api.guard.sites import Sites
from api.routes import app_options
from api.server.connections import raise_file_limit
from api.server.listening import listen_at
from api.server.shutdown import exit_process, silence_cut_answers
from api.visitor import user_of
from jobs.telemetry.job_log import print_job_log
from pipeline.errors import SettingError, StepwiseError
from settings import Settings
from ui.login_page import login_page, logout_page, password_page
from ui.page import build_page, launch_options

if TYPE_CHECKING:
    import gradio as gr

    from jobs.queue import Queue

MOST_CALLS = 1000
"""Calls that Gradio has in hand at once. Its 40 (`max_threads`, 6.31) bounds async functions too, which
need no thread: the 41st caller would wait in Gradio's queue, before ours and unseen by it."""


def main() -> None:
    """Start and serve, as `python app.py` does."""
    serve(started())


def serve(started: Started) -> NoReturn:
    """Serve the page and the API until Ctrl-C or SIGTERM, then end the process."""
    shutdown, settings = started.shutdown, started.settings
    try:
        login = make_login(settings)
        engine = settings.engine()
        preload = settings.to_preload(engine)
        engine.load_for_zerogpu()
    except StepwiseError as error:
        sys.exit(str(error))
    shutdown.require_cleanup()
    try:
        # A small model is ready before anyone has typed a prompt.
        queue = settings.queue(engine, preload, started.folder)
    except StepwiseError as error:
        print(error, file=sys.stderr)
        exit_process(1)  # a model may be on its way already
    with shutdown.closing(queue, settings.grace) as served:
        demo = served.demo = page_of(queue, settings, login)
        listen_at(started.address, settings.proxies)
        if not shutdown.requested:
            try:
                demo.launch(
                    **launch_options(),
                    prevent_thread_lock=True,  # Gradio's own waiting ends by an exception; ours is below
                    auth_dependency=user_of if login else None,
                    max_threads=MOST_CALLS,
                    state_session_capacity=MOST_SESSIONS,
                    mcp_server=False,  # ours is at /mcp; Gradio's would make a tool of every endpoint
                    app_kwargs=app_options(
                        demo,
                        queue,
                        settings.api_keys,
                        login,
                        Sites.from_settings(settings.hosts, settings.origins, settings.frames),
                    ),
                )
            except SettingError as error:  # the address is another program's since it was looked at
                sys.exit(str(error))
            shutdown.wait()
    raise AssertionError("`closing` ends the process")


def page_of(queue: Queue, settings: Settings, login: Login | None) -> gr.Blocks:
    """Build the page and make the process ready to serve it: its log, its limits and Gradio's queue."""
    print_job_log()
    demo = build_page(queue, login is not None)
    silence_cut_answers()
    raise_file_limit()
    with no_app():
        demo.queue(api_open=False, max_size=MOST_CALLS, default_concurrency_limit=None)
    harden_queue(demo)
    print(access_notice(settings.api_keys, login.who if login else ""), flush=True)
    exclude_libraries_from_gc()
    return demo


def exclude_libraries_from_gc() -> None:
    """Take the half a million objects that the libraries have made by now out of what the garbage collector
    looks at. It looks at everything that has lasted whenever a quarter as much has come since: until then
    125,000 objects of finished calls would stay, and each such look would halt the server for a quarter of a
    second."""
    gc.collect()
    gc.freeze()
    gc.collect()  # it counts anew what lasts
    gc.enable()
    gc.set_threshold(700, 10, 2)  # all of it five times as often as usual: 14 ms, for 64,000 objects


def make_login(settings: Settings) -> Login | None:
    """Return the way to log in that the settings ask for, or None if everyone may come in.

    Raises:
        SettingError: what the Hugging Face login needs isn't there, or a password is too long.
    """
    root_path = os.environ.get("GRADIO_ROOT_PATH", "")  # as Gradio's launch reads it
    if settings.hub_login:
        from api.auth.hub_login import HubLogin, Provider  # its libraries, for those who need them

        return HubLogin(Provider.from_environment(), settings.users, login_page, logout_page, root_path)
    if not settings.login:
        return None
    return Accounts(settings.login, password_page, logout_page, Site(root_path, space_host()))


if __name__ == "__main__":
    serve(STARTED)
