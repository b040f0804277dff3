"""REST as any client would speak it: named parameters to /gradio_api/call/v2/…, bodies as raw bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT = 120
"""Seconds; generous, for two noisy cores."""


def post(server: str, endpoint: str, body: bytes | dict[str, Any]) -> httpx.Response:
    """The answer to one call: an event's id, or a refusal."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{server}/gradio_api/call/v2/{endpoint}"
    return httpx.post(url, content=content, headers={"content-type": "application/json"}, timeout=TIMEOUT)


def stream(server: str, endpoint: str, event_id: str) -> Iterator[tuple[str, Any]]:
    """(event, data) of a call's stream, heartbeats left out."""
    url = f"{server}/gradio_api/call/{endpoint}/{event_id}"
    with httpx.stream("GET", url, timeout=TIMEOUT) as response:
        assert response.status_code == 200, response.read()
        event = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event != "heartbeat":
                yield event, json.loads(line.removeprefix("data: "))


def call(server: str, endpoint: str, body: bytes | dict[str, Any]) -> Any:
    """A call's last data; its event must be `complete`."""
    answer = post(server, endpoint, body)
    assert answer.status_code == 200, answer.text
    *_, (event, data) = stream(server, endpoint, answer.json()["event_id"])
    assert event == "complete", data
    return data


def figures(server: str) -> dict[tuple[str, ...], float]:
    """What Prometheus reads: by name and the labels' values."""
    answer = httpx.get(f"{server}/metrics", timeout=TIMEOUT)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return read_figures(answer.text)


def read_figures(text: str) -> dict[tuple[str, ...], float]:
    """The samples of Prometheus' text format, by name and the labels' values."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def refusal(answer: httpx.Response) -> str:
    """The words of a refusal: every message of Gradio's validation, or its plain detail."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    detail = answer.json()["detail"]
    if isinstance(detail, str):
        return detail
    return " ".join(one.get("message") or one.get("msg") or "" for one in detail).strip()
