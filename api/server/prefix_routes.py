"""Routes that take all paths with their prefix.

Starlette's own (1.10) compile "{path:path}" so that "." doesn't match a line break: a path with one goes past
them to the routes after them, here to Gradio's. Both can go when Starlette compiles it with re.DOTALL.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.routing import Mount, Route
from starlette.types import ASGIApp


class PrefixMount(Mount):
    """An app at all paths with this prefix."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


class PrefixRoute(Route):
    """A route whose path ends with "{name:path}", for all that begins so."""

    def __init__(self, path: str, endpoint: Any) -> None:
        super().__init__(path, endpoint)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)
