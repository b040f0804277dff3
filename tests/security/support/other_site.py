"""Sites of other people, for a real browser: one HTTP server on this machine, and names that lead to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class OtherSite:
    """port: where it listens, under each name that a browser has for this machine. pages: its pages by their
    paths; any other is empty. asked: the headers of each request, their names in small letters."""

    port: int
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"http://{name}:{self.port}"


@contextlib.contextmanager
def other_site() -> Iterator[OtherSite]:
    """Runs it."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append({name.lower(): value for name, value in self.headers.items()})
            kind, content = site.pages.get(
                self.path, ("text/html", b"<!doctype html><title>site</title><body>")
            )
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as web:
        site = OtherSite(web.server_port)
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        yield site
        web.shutdown()
