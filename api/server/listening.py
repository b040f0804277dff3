"""The web server that Gradio starts, on sockets of our own: on the address that was asked for, or not at
all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import uvicorn
from gradio import http_server

from api.gradio.patches import replace_start_server
from api.server.address import ANY, Address
from api.server.connections import HeaderTimeoutProtocol
from api.server.forwarded import Network, TrustProxies

ANSWERS = 1
"""Seconds for which answers that are under way may go on when the server ends. Gradio (6.31) gives the whole
end 5 s, and waits that long for every open stream (an MCP client's, a tab's)."""


class Server(http_server.Server):
    """Gradio's own server, which is given listening sockets and waits as long as its start takes. Gradio
    (6.31) waits 5 s, and takes a server that is late for one whose port is taken."""

    def __init__(self, config: uvicorn.Config, sockets: list[Any]) -> None:
        super().__init__(config)
        self._sockets = sockets

    def run_in_thread(self) -> None:
        self.thread = threading.Thread(target=self.run, args=(self._sockets,), daemon=True)
        self.thread.start()
        while not self.started:
            if not self.thread.is_alive():
                raise RuntimeError("The web server ended while it started; the lines above say why.")
            time.sleep(0.01)


def listen_at(address: Address, proxies: Sequence[Network] | None) -> None:
    """Make Gradio's next launch listen at this address, whatever it is given and the environment says.

    It raises `address.listen`'s SettingError then.

    Args:
        proxies: as of `TrustProxies`.
    """

    def start_server(app: Any, *_: Any, **__: Any) -> tuple[str, int, str, http_server.Server]:
        sockets = address.listen(lambda words: print(words, flush=True))
        port = sockets[0].getsockname()[1]
        config = uvicorn.Config(
            TrustProxies(app, proxies),
            host=address.host,
            port=port,
            log_level="warning",
            http=HeaderTimeoutProtocol,
            timeout_graceful_shutdown=ANSWERS,
            proxy_headers=False,  # its own believes this machine, or what FORWARDED_ALLOW_IPS says
        )
        server = Server(config, sockets)
        server.run_in_thread()
        host = address.url_host()
        if address.host in ANY:
            print(
                f"* Listening on port {port} of all of this machine's addresses ({address.host}).", flush=True
            )
        return host, port, f"http://{host}:{port}/", server

    replace_start_server(start_server)
