"""`stepwise serve`: the app, on an address of one's choice."""

from __future__ import annotations

import argparse
import gc
import socket
from typing import NoReturn

from cli.errors import UsageError


def serve(options: argparse.Namespace) -> NoReturn:
    """Serves until Ctrl-C or SIGTERM.

    Raises:
        UsageError: this machine can't listen there. SystemExit: the app can't start.
    """
    host, port = options.host, options.port
    if port is not None and not 1 <= port <= 65535:
        raise UsageError(f"--port must be from 1 to 65535; got {port}.")
    if host is not None or port is not None:
        _try(host or "127.0.0.1", port or 0)  # before the seconds that the imports take
    from api.starting import start

    started = start()
    gc.disable()  # as app.py does
    import app

    app.serve(started, host, port)


def _try(host: str, port: int) -> None:
    """Listens there for a moment: Gradio (6.31) asks for a port only after all else is done, and calls any
    host that it can't listen on a taken port."""
    try:
        family, *_, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        socket.create_server(address[:2], family=family).close()
    except (OSError, UnicodeError) as error:
        where = f"port {port} of {host}" if port else host
        words = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"Can't listen on {where}: {words}.") from error
