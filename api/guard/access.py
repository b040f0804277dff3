"""Every route of the app in one table: who may call it, from which pages, how large a body it reads, and how
often it may be called. guard.py and auth/login.py go by it, docs/login-and-security.md prints it, and a route
that isn't in it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gradio.route_utils import API_PREFIX
from starlette.responses import Response
from starlette.routing import compile_path

ACCESS = "stepwise.access"
"""Of an ASGI scope: the Access of its route (guard.py puts it there)."""

REFUSE = "stepwise.refuse"
"""Of an ASGI scope: how the API that is asked refuses (a Refuse; Guard puts it there)."""
Refuse = Callable[[int, str, Mapping[str, str]], Response]
"""Renders a refusal: its status, its words and its headers."""

Who = Literal["everyone", "visitor", "file", "program", "nobody"]
"""everyone: whoever reaches the server, also where it asks for a login. visitor: where there is a login
(STEPWISE_LOGIN), who is logged in. file: as visitor, and who has a key. program: where there is a login or
there are keys (STEPWISE_API_KEYS), who has either. nobody: the route is closed."""
Pages = Literal["any", "sites", "own"]
"""Whose pages may send a request from a browser. any: those of every site. sites: the server's own, those of
the sites that it is open to (sites.py), and, for GET, whoever follows a link. own: its own alone. A program
that is no browser may always; another site's page never uses the cookie or the password of its visitor."""
Often = Literal["", "drawings", "joins", "calls", "guesses"]
"""What is counted for each person. drawings: those that are started, STEPWISE_RATE. joins: calls that wait in
Gradio's queue, ten times as many. calls: those that are answered at once, a hundred times. guesses: wrong
passwords, tokens and keys, as keys.GUESSES. Empty: nothing is."""

LARGE = 2**20
"""Bytes of the body of a request that draws. The longest has four texts of 10,000 characters; each character
written as two \\u escapes, that is 480 KB."""
MESSAGE = 2**18
"""Bytes of a message of MCP's. The longest has two such texts."""
SMALL = 2**14
"""Bytes of any other body: of a name and a password, or of none."""

GET = ("GET",)
READ = ("GET", "HEAD")
POST = ("POST",)
ANY = ("*",)


@dataclass(frozen=True)
class Access:
    """Who may do what at one route. path: as Starlette writes it; a slash at its end makes no difference.
    methods: those that it answers; ANY: the route itself looks at them. most_bytes: the largest body."""

    path: str
    methods: tuple[str, ...]
    who: Who
    pages: Pages = "sites"
    most_bytes: int = SMALL
    often: Often = ""

    def allows(self, method: str) -> bool:
        """Whether the route answers this method."""
        return method in self.methods or self.methods == ANY


UNLISTED = Access("{path:path}", ANY, "nobody")
"""What holds for a path that the table doesn't have."""

PAGE = (
    Access("/", READ, "visitor"),
    Access("/config", GET, "visitor"),
    Access("/assets/{path:path}", GET, "visitor", "any"),
    Access("/static/{path:path}", GET, "visitor", "any"),
    Access("/svelte/{path:path}", GET, "visitor", "any"),
    Access("/theme.css", GET, "visitor", "any"),
    Access("/favicon.ico", GET, "everyone", "any"),
    Access("/manifest.json", GET, "everyone", "any"),
    Access("/robots.txt", GET, "everyone", "any"),
)
"""The page, and what a browser fetches for it, some of it without its cookies."""

GRADIO = (
    *(
        Access(f"{API_PREFIX}/{name}", GET, "visitor")
        for name in ("info", "openapi.json", "user", "login_check", "token", "app_id", "queue/status")
    ),
    Access(f"{API_PREFIX}/startup-events", GET, "everyone", "any"),  # Gradio looks whether it has started
    Access(f"{API_PREFIX}/theme.css", GET, "visitor", "any"),
    Access(f"{API_PREFIX}/file={{path:path}}", READ, "file", "any"),
    *(
        Access(f"{API_PREFIX}/{name}", POST, "visitor", "sites", LARGE, "joins")
        for name in ("queue/join", "call/v2/{name}", "call/{name}")
    ),
    *(
        Access(f"{API_PREFIX}/{name}/{{name}}", POST, "visitor", "sites", LARGE, "calls")
        for name in ("run", "api")
    ),
    *(
        Access(f"{API_PREFIX}/{name}", GET, "visitor")
        for name in ("queue/data", "call/v2/{name}/{event}", "call/{name}/{event}", "heartbeat/{session}")
    ),
    *(Access(f"{API_PREFIX}/{name}", POST, "visitor") for name in ("cancel", "reset")),
)
"""Gradio's API (6.31): the page's own, gradio_client's and @gradio/client's, and REST."""

OPENAI = (
    Access("/v1/images/generations", POST, "program", "sites", LARGE, "drawings"),
    *(Access(f"/v1/{name}", GET, "program") for name in ("models", "models/{model:path}", "openapi.json")),
    Access("/v1/{path:path}", ANY, "program", "sites", LARGE),  # refused in OpenAI's words
    Access("/v1", ANY, "program", "sites", LARGE),
    *(
        Access(path, ("GET", "HEAD", "POST"), "visitor", "sites", LARGE)  # says where the API is
        for path in (
            "/images/{path:path}",
            "/models",
            "/models/{path:path}",
            "/chat/completions",
            "/completions",
            "/responses",
            "/embeddings",
            "/moderations",
            "/audio/{path:path}",
            "/openai/{path:path}",
        )
    ),
)
MCP = (Access("/mcp", ("GET", "HEAD", "POST", "DELETE"), "program", "sites", MESSAGE, "drawings"),)
HEALTH = (
    Access("/livez", READ, "everyone", "any"),
    Access("/readyz", READ, "everyone", "any"),
    Access("/metrics", READ, "visitor"),
)

CLOSED = tuple(
    Access(path, ANY, "nobody")
    for path in (
        # Take files, keep or convert them, without a bound of their number.
        *(f"{API_PREFIX}/{name}" for name in ("upload", "upload_progress", "process_recording")),
        *(f"{API_PREFIX}/{name}" for name in ("component_server", "stream/{path:path}")),
        # Fetch or read what a stranger names: Gradio checks that an address is public before it fetches it,
        # but lets pass 100.64.0.0/10 and 192.0.0.192, a cloud's own services.
        *(f"{API_PREFIX}/{name}" for name in ("proxy={path:path}", "file/{path:path}")),
        f"{API_PREFIX}/custom_component/{{path:path}}",
        # Write files, change the page's code, wake 20 times a second, keep what everyone did.
        *(f"{API_PREFIX}/{name}" for name in ("deep_link", "dev/{path:path}", "runs")),
        *(f"{API_PREFIX}/{name}/{{path:path}}" for name in ("run-history", "profiling")),
        *(f"{API_PREFIX}/{name}" for name in ("vibe-edit", "undo-vibe-edit", "vibe-code")),
        f"{API_PREFIX}/vibe-starter-queries",
        "/monitoring",
        "/monitoring/{path:path}",
        # Resizes the icon to any size.
        "/pwa_icon",
        "/pwa_icon/{size}",
        # Describes Gradio's routes, those too that are closed.
        "/openapi.json",
        # Where there is no such login.
        "/login",
        "/logout",
    )
)
"""Gradio's routes (6.31) that Stepwise has no use for."""

PASSWORDS = (
    Access("/login", POST, "everyone", "own", SMALL, "guesses"),
    Access("/login", READ, "everyone"),
    Access("/logout", READ, "everyone"),
    Access("/logout", POST, "everyone", "own"),
)
"""Of the login with names and passwords (auth/passwords.py)."""
HUGGING_FACE = (
    Access("/login/huggingface", READ, "everyone"),
    Access("/login/callback", READ, "everyone", "sites", SMALL, "guesses"),
    Access("/logout", READ, "everyone"),
    Access("/logout", POST, "everyone", "own"),
)
"""Of the login with Hugging Face (auth/hub_login.py)."""

OPEN = (*PAGE, *GRADIO, *OPENAI, *MCP, *HEALTH)


class Table:
    """The routes of one app, found by their paths."""

    def __init__(self, login: Sequence[Access] = ()) -> None:
        """login: the routes of the login that there is: PASSWORDS, HUGGING_FACE, or none."""
        self.routes = (*OPEN, *login, *CLOSED)
        self._compiled = [(_expression(route.path), route) for route in self.routes]

    def find(self, path: str, method: str) -> Access:
        """Return the first entry of this path that allows the method, else the first of this path, or
        UNLISTED where there is none."""
        found = [route for expression, route in self._compiled if expression.fullmatch(path)]
        return next((route for route in found if route.allows(method)), found[0] if found else UNLISTED)

    def methods(self, path: str) -> list[str]:
        """Return all methods that the entries of this path allow."""
        found = [route for expression, route in self._compiled if expression.fullmatch(path)]
        return list(dict.fromkeys(method for route in found for method in route.methods))


def _expression(path: str) -> re.Pattern[str]:
    """Return what matches a route's path, also with a slash at its end. Starlette's own leaves a path with a
    line break in it to other routes."""
    expression, _, _ = compile_path(path)
    pattern = expression.pattern.removeprefix("^").removesuffix("$")
    return re.compile(pattern if path == "/" else f"{pattern}/?", re.DOTALL)


def under(path: str, start: str) -> bool:
    """Whether this path is `start`, or below it."""
    return path == start or path.startswith(f"{start}/")
