"""Who asks: a platform that lends GPUs looks for the visitor who pays in the context that Gradio makes for
its own endpoints. The routes beside Gradio's make the same one.
"""

from __future__ import annotations

from typing import Any, cast

import gradio as gr
from gradio.context import LocalContext
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send


def seen_from_gradio(app: ASGIApp, demo: gr.Blocks) -> ASGIApp:
    """The app, its requests seen as Gradio's own are: whose they are, and which server's. `spaces` (0.51)
    closes that server's connections in the processes that it forks."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        LocalContext.blocks.set(demo)
        if scope["type"] == "http":
            asked_by(Request(scope))
        await app(scope, receive, send)

    return call


def asked_by(request: Request) -> None:
    """From here on, in this context, this request is the one that asks."""
    LocalContext.request.set(cast(Any, request))  # Gradio's own wraps one of these; only its headers are read
