"""A client of the benchmarks that speaks REST, asynchronously: many of them cost one process little."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx


class Refused(Exception):
    """The server answered, and said no; its words."""


class Disconnected(Exception):
    """The stream broke off before its end."""


async def ask(
    http: httpx.AsyncClient, url: str, endpoint: str, values: dict[str, Any], named: bool = True
) -> str:
    """The id of a call that was begun. named: values are parameters by name, as of Gradio's v2.

    Raises:
        Refused, httpx.TransportError.
    """
    answer = await http.post(f"{url}/gradio_api/call/{'v2/' if named else ''}{endpoint}", json=values)
    if answer.status_code != 200:
        raise Refused(f"{answer.status_code}: {answer.text[:300]}")
    return answer.json()["event_id"]


async def follow(
    http: httpx.AsyncClient, url: str, endpoint: str, values: dict[str, Any], named: bool = True
) -> AsyncIterator[tuple[list[Any], dict[str, Any]]]:
    """(images, info) of each event of a call, to its last; no images where the endpoint has none.

    Raises:
        Refused, Disconnected, httpx.TransportError.
    """
    call = await ask(http, url, endpoint, values, named)
    async with http.stream("GET", f"{url}/gradio_api/call/{endpoint}/{call}") as answer:
        if answer.status_code != 200:
            raise Disconnected(f"{answer.status_code}")
        event = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event != "heartbeat":
                data = json.loads(line.removeprefix("data: "))
                if event == "error":
                    raise Refused(str(data))
                yield (data[0] if len(data) > 1 else []), data[-1]
                if event == "complete":
                    return
    raise Disconnected("its end is missing")


async def fetch(http: httpx.AsyncClient, picture: dict[str, Any]) -> bytes:
    """A picture of an event.

    Raises:
        Disconnected: it isn't there (any more). httpx.TransportError.
    """
    answer = await http.get(picture["image"]["url"])
    if answer.status_code != 200:
        raise Disconnected(f"{answer.status_code}")
    return answer.content
