"""Where Stepwise reaches into Starlette."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "1.10.0"

PATCHES = (
    Patch(
        "starlette",
        "api/server/prefix_routes.py",
        "self.path_regex = ",
        "`routing.Mount.path_regex`, `Route.path_regex`",
        "a path with a line break goes past them to the routes after",
        "tests/contracts/test_starlette.py::test_a_line_break_goes_past_a_route",
    ),
)
