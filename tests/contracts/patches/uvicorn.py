"""Where Stepwise reaches into uvicorn."""

from __future__ import annotations

from tests.contracts.patches.patch import Patch

VERSION = "0.54.0"

PATCHES = (
    Patch(
        "uvicorn",
        "api/server/connections.py",
        "class HeaderTimeoutProtocol(H11Protocol)",
        "`protocols.http.h11_impl.H11Protocol`",
        "no time limit for a request's headers; a body that is no HTTP is answered twice",
        "tests/contracts/test_uvicorn.py::test_the_protocol_is_the_one_that_was_extended",
    ),
    Patch(
        "uvicorn",
        "api/server/forwarded.py",
        "self._proxied.trusted_hosts",
        "`ProxyHeadersMiddleware.trusted_hosts`",
        "believes named proxies, but leaves the headers of everyone else in the request",
        "tests/contracts/test_uvicorn.py::test_the_proxies_middleware_knows_whom_it_trusts",
    ),
    Patch(
        "uvicorn",
        "api/server/shutdown.py",
        'getLogger("uvicorn.error").addFilter',
        "its log",
        "a traceback for each answer that the end of the server cuts",
        "tests/contracts/test_uvicorn.py::test_an_answer_that_is_cut_is_logged_there",
    ),
)
