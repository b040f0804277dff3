"""`stepwise serve`: the app, on an address of one's choice."""

from __future__ import annotations

import argparse
import gc
from typing import NoReturn

from cli.errors import UsageError
from pipeline.errors import SettingError


def serve(options: argparse.Namespace) -> NoReturn:
    """Serves until Ctrl-C or SIGTERM.

    Raises:
        UsageError: this machine can't listen there. SystemExit: the app can't start.
    """
    from api.server.address import Address
    from api.server.startup import start

    try:
        address = Address.from_environment(options.host, options.port)
        address.ensure_free()  # before the seconds that the imports take
    except SettingError as error:
        raise UsageError(str(error)) from error
    started = start(address)
    gc.disable()  # as app.py does
    import app

    app.serve(started)
