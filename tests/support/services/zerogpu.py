"""A stand-in for ZeroGPU's device API, which `spaces` (0.51, zero/api.py) asks for a GPU, over HTTP on this
machine. It lends one GPU that isn't there, refuses as a test says, and remembers what it was asked.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


class FakeZeroGpu:
    """A context manager: serves until it is left."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        """The parameters of each call for a GPU."""
        self.workers: list[int] = []
        """The process ids of the workers that were given one, the newest last."""
        self.given_back: list[str] = []
        """How each was given back: whether the call `fail`ed."""
        self.refusal: tuple[int, dict[str, Any]] | None = None
        """Answered instead of a GPU: status and body."""
        self.waiting = threading.Event()
        """Whether callers wait in line, until `lent` is set."""
        self.in_line, self.lent, self.returned = threading.Event(), threading.Event(), threading.Event()
        """Set when one waits; by a test, to lend it a GPU; when one has been given back."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                url = urlsplit(self.path)
                getattr(self, url.path.strip("/").replace("-", "_"))(dict(parse_qsl(url.query)))

            def startup_report(self, _: dict[str, str]) -> None:
                self.answer(200, {})

            def schedule(self, asked: dict[str, str]) -> None:
                api.asked.append(asked)
                if api.refusal is not None:
                    self.answer(*api.refusal)
                elif api.waiting.is_set():
                    self.queue()
                else:
                    self.answer(200, api.lend())

            def queue(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b"event: ping\n\n")
                self.wfile.flush()
                api.in_line.set()
                api.lent.wait(60)
                self.wfile.write(f"event: succeeded\ndata: {json.dumps(api.lend())}\n\n".encode())

            def allow(self, asked: dict[str, str]) -> None:
                api.workers.append(int(asked["pid"]))
                self.answer(200, {})

            def release(self, asked: dict[str, str]) -> None:
                api.given_back.append(asked["fail"])
                api.returned.set()
                self.answer(200, {})

            def answer(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", f"{len(data)}")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def lend(self) -> dict[str, Any]:
        return {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "GPU-none", "allowToken": "a token"}

    def reset(self) -> None:
        """As at the start; a worker that is there stays."""
        self.asked.clear()
        self.given_back.clear()
        self.refusal = None
        for event in (self.waiting, self.in_line, self.lent, self.returned):
            event.clear()

    def __enter__(self) -> FakeZeroGpu:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.lent.set()
        self._server.shutdown()
        self._server.server_close()
