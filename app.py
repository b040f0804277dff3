"""Stepwise: draws with Stable Diffusion 3.5 and shows every step. The Space's entry point.

    python app.py

serves the page and the API; see README.md for the settings.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys

from api.server.startup import Started, start


def started() -> Started:
    """Reads the command line, and starts; before the imports below, which take seconds.

    Raises:
        SystemExit: as of `start`, and from argparse.
    """
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    return start()


if __name__ == "__main__":
    STARTED = started()
    gc.disable()  # until `look_past_libraries`: a fifth of the imports' time, and there is nothing to collect

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Drawing on a CPU: libgomp's threads spin while they wait, and hold up the streaming of the previews.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

if os.environ.get("SPACES_ZERO_GPU"):
    import spaces  # noqa: F401  # first: it makes torch believe in a GPU that only its workers have

from typing import TYPE_CHECKING, NoReturn

from api.auth.browser_login import Site, space_host
from api.auth.keys import access_notice
from api.auth.login import Login
from api.auth.passwords import Accounts
from api.gradio.queue import MOST_SESSIONS, make_queue_last
from api.gradio.routes import keep_gradio_to
from api.guard.sites import Sites
from api.routes import app_options
from api.server.connections import expect_headers, raise_file_limit
from api.server.listening import listen_at
from api.server.shutdown import expect_cuts, leave
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
    serve(started())


def serve(started: Started) -> NoReturn:
    """Serves the page and the API until Ctrl-C or SIGTERM; then ends the process."""
    ending, settings = started.ending, started.settings
    try:
        login = login_of(settings)
        engine = settings.engine()
        preload = settings.to_preload(engine)
        engine.load_for_zerogpu()
    except StepwiseError as error:
        sys.exit(str(error))
    ending.in_order()
    try:
        # A small model is ready before anyone has typed a prompt.
        queue = settings.queue(engine, preload, started.folder)
        keep_gradio_to(queue.folder.gradio)
    except StepwiseError as error:
        print(error, file=sys.stderr)
        leave(1)  # a model may be on its way already
    with ending.closing(queue, settings.grace) as served:
        demo = served.demo = page_of(queue, settings, login)
        demo.block_thread = ending.wait  # type: ignore[method-assign]  # Gradio's own waits for an exception
        listen_at(started.address, settings.proxies)
        if not ending.told:
            try:
                demo.launch(
                    **launch_options(),
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
            ending.wait()  # where Gradio doesn't, as under `python -i`
    raise AssertionError("`closing` ends the process")


def page_of(queue: Queue, settings: Settings, login: Login | None) -> gr.Blocks:
    """The page, ready to be launched, with all that the process needs for it."""
    print_job_log()
    demo = build_page(queue, login is not None)
    expect_cuts()
    expect_headers()
    raise_file_limit()
    demo.queue(api_open=False, max_size=MOST_CALLS, default_concurrency_limit=None)
    make_queue_last(demo)
    print(access_notice(settings.api_keys, login.who if login else ""), flush=True)
    look_past_libraries()
    return demo


def look_past_libraries() -> None:
    """Takes what is there now, half a million objects of the libraries, out of the garbage collector's sight.
    It looks at all that lasts whenever a quarter as much has come since: until then 125,000 objects of calls
    that are over would stay, and each such look would halt the server for a quarter of a second."""
    gc.collect()
    gc.freeze()
    gc.collect()  # it counts anew what lasts
    gc.enable()
    gc.set_threshold(700, 10, 2)  # all of it five times as often as usual: 14 ms, for 64,000 objects


def login_of(settings: Settings) -> Login | None:
    """How one logs in; None: nobody need.

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
