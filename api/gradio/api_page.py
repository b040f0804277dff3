"""What Gradio's API page (its footer: "Use via API") shows of an endpoint: words for the parameters, and
snippets that run as they stand. What the endpoints do is endpoints.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

from gradio import routes

EXAMPLES = {"prompt": "a red apple"}
"""What the snippets send; null for the rest, which has defaults."""
NO_JOB = "00000000-0000-0000-0000-000000000000"
"""/stop's example: whose answer is that there is no such job."""


def describe(
    function: Any, inputs: Mapping[str, str], outputs: list[str], examples: Mapping[str, Any]
) -> None:
    """Gives an endpoint's parameters their words and examples; gr.api (6.31) calls them 1st, 2nd, … and
    shows "...", which its CLI snippet sends even for those that have a default."""
    for block, (name, words) in zip(function.inputs, inputs.items(), strict=True):
        block.label = name
        block._api_info = {**block._api_info, "additional_description": words}
        block.example_payload = partial(examples.get, name)
    for block, words in zip(function.outputs, outputs, strict=True):
        block.label = words


_INFO: ContextVar[dict[str, Any] | None] = ContextVar("this request's /info", default=None)


class _OfThisRequest:
    """An attribute that keeps its value for one request."""

    def __get__(self, app: Any, kind: type) -> dict[str, Any] | None:
        return _INFO.get()

    def __set__(self, app: Any, info: dict[str, Any] | None) -> None:
        _INFO.set(info)


def mend_snippets() -> None:
    """Makes the page's snippets name the address at which the one who asks reached the server, and its cURL
    snippets run in bash and sh, too.

    Gradio (6.31) keeps the snippets with the address of whoever asked first, be it one within a proxy or what
    a forged X-Forwarded-Host said, and gives them to everyone. And it pipes the event's id into `read`, which
    only zsh runs in the shell that goes on: elsewhere the id stays empty. This can go when it keeps none, and
    its snippets no longer say `| read`.
    """
    routes.App.api_info = _OfThisRequest()  # type: ignore[assignment]
    generate = routes.generate_code_snippets
    if getattr(generate, "mended", False):
        return

    def mended(*args: Any, **kwargs: Any) -> dict[str, str]:
        snippets = generate(*args, **kwargs)
        snippets["bash"] = _without_read(snippets["bash"])
        return snippets

    mended.mended = True  # type: ignore[attr-defined]
    routes.generate_code_snippets = mended


def _without_read(snippet: str) -> str:
    call, piped, rest = snippet.partition(" \\\n  | read EVENT_ID; ")
    return f"EVENT_ID=$({call})\n{rest}" if piped else snippet
