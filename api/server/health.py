"""GET /livez, /readyz and /metrics, for whoever runs the server: a supervisor, a load balancer, Prometheus.

They read memory only and wait for nothing, so they answer also while the disk or a drawing keeps others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import gradio as gr
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.gradio.patches import queue_of

if TYPE_CHECKING:
    from jobs.queue import Queue

PATHS = ("/livez", "/readyz", "/metrics")
FRESH = {"Cache-Control": "no-store"}


def health_routes(demo: gr.Blocks, queue: Queue) -> list[Route]:
    """Return the three routes.

    Args:
        demo: the page, whose own queue stands before ours for the page and Gradio's clients.
    """

    async def live(_: Request) -> Response:
        return _answer("dead", queue.not_alive() or why_page_queue_stopped(demo))

    async def ready(_: Request) -> Response:
        page = why_page_queue_stopped(demo) or why_page_queue_waits(demo)
        return _answer("not ready", queue.not_alive() or page or queue.not_ready())

    async def metrics(_: Request) -> Response:
        return Response(queue.metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4, headers=FRESH)

    return [Route(path, answer) for path, answer in zip(PATHS, (live, ready, metrics))]


def refuse(status: int, words: str, headers: Mapping[str, str]) -> Response:
    """Return an error in these routes' shape; Prometheus' clients show it to people."""
    return JSONResponse({"status": "error", "reason": words}, status, {**FRESH, **headers})


def why_page_queue_stopped(demo: gr.Blocks) -> str:
    """Say why Gradio's queue (6.31) starts no events any more, or return an empty text."""
    # Also where its task has ended by an exception: each call is then answered with 503.
    return "the page's queue has stopped" if queue_of(demo).stopped else ""


def why_page_queue_waits(demo: gr.Blocks) -> str:
    """Say that Gradio's queue (6.31) hasn't begun, or return an empty text. It begins once the server
    listens, at a request of `launch`, which fails where that does."""
    begun = queue_of(demo).active_jobs  # the row of its places, made when it begins
    return "" if begun else "the page's queue hasn't begun"


def _answer(status: str, reason: str) -> JSONResponse:
    if not reason:
        return JSONResponse({"status": "ok"}, headers=FRESH)
    return JSONResponse({"status": status, "reason": reason}, 503, headers=FRESH)
