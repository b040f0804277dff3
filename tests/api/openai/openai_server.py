"""OpenAI's official Python client, and the routes it talks to over a queue of this process: on a real
socket, so that a test can hold a step and look at the drawing meanwhile. Gradio isn't in front of them there.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import httpx2
import openai
import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from api.auth.keys import AskForKey
from api.auth.login import AskForLogin, Login
from api.guard.access import Refuse, Table
from api.guard.guard import AllowListed, Guard
from api.guard.sites import Sites
from api.openai.errors import refuse
from api.openai.routes import PREFIX, openai_app
from api.pictures import PictureFiles
from jobs.queue import Queue
from tests.conftest import free_port
from tests.support.rest import TIMEOUT

TINY: dict[str, Any] = {"prompt": "a fox", "model": "tiny", "size": "64x64"}
SMALL: dict[str, Any] = {"prompt": "a red apple", "size": "128x128"}
"""As tests.support.tiny.SMALL, with the steps and the seed in EXTRAS: the client passes on what it doesn't
know."""
EXTRAS: dict[str, Any] = {"steps": 4, "seed": 7}


def guarded(app: ASGIApp, refuse: Refuse, keys: Sequence[str] = (), login: Login | None = None) -> ASGIApp:
    """The app behind the guard of all routes, as api/routes.py puts it together."""
    table, secrets = Table(), [SecretStr(key) for key in keys]
    inner = AllowListed(app, table)
    behind = AskForLogin(inner, login, secrets) if login else AskForKey(inner, secrets)
    return Guard(behind, table, Sites(), {PREFIX: refuse}, refuse, lambda _: bool(keys))


@contextlib.contextmanager
def openai_server(queue: Queue, keys: Sequence[str] = ()) -> Iterator[str]:
    """Gives the server's address."""
    files = PictureFiles(queue.folder.logs)
    app = openai_app(queue, files, lambda _: "", bool(keys))
    guarded_app = guarded(Starlette(routes=[Mount(PREFIX, app)]), refuse, keys)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(guarded_app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{port}"
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/v1/", timeout=TIMEOUT).status_code:
                break
        time.sleep(0.01)
    try:
        yield url
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)


def client(server: str, **options: Any) -> openai.OpenAI:
    """As anyone would make it: only the base URL is ours. It insists on a key, and asks again twice."""
    return openai.OpenAI(**{"base_url": f"{server}/v1", "api_key": "none", "timeout": TIMEOUT} | options)


def counting(server: str) -> tuple[openai.OpenAI, list[httpx2.Request]]:
    """A client, and the requests that it really sends."""
    sent: list[httpx2.Request] = []
    http = httpx2.Client(event_hooks={"request": [sent.append]}, timeout=TIMEOUT)
    return client(server, http_client=http), sent


def post(server: str, body: bytes | str, **headers: str) -> httpx.Response:
    """A body as it stands, to /v1/images/generations."""
    url = f"{server}/v1/images/generations"
    named = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return httpx.post(url, content=body, headers=named, timeout=TIMEOUT)
