"""What Gradio's API page (its footer: "Use via API") shows of an endpoint: words for the parameters, and
snippets that run as they stand. What the endpoints do is endpoints.py's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.gradio.patches import describe_parameter, edit_bash_snippets, make_api_info_for_each_request

EXAMPLES = {"prompt": "a red apple"}
"""What the snippets send; null for the rest, which has defaults."""
NO_JOB = "00000000-0000-0000-0000-000000000000"
"""/stop's example: whose answer is that there is no such job."""


def describe(
    function: Any, inputs: Mapping[str, str], outputs: list[str], examples: Mapping[str, Any]
) -> None:
    """Give an endpoint's parameters and outputs their words, and the parameters their examples."""
    for block, (name, words) in zip(function.inputs, inputs.items(), strict=True):
        describe_parameter(block, name, words, examples.get)
    for block, words in zip(function.outputs, outputs, strict=True):
        block.label = words


def correct_snippets() -> None:
    """Make the page's snippets name the address at which the one who asks reached the server, and its cURL
    snippets run in bash and sh, too."""
    make_api_info_for_each_request()
    edit_bash_snippets(_without_read)


def _without_read(snippet: str) -> str:
    """Return the snippet without its pipe into `read`."""
    call, piped, rest = snippet.partition(" \\\n  | read EVENT_ID; ")
    return f"EVENT_ID=$({call})\n{rest}" if piped else snippet
