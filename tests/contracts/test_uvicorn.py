"""What api/server/ extends in uvicorn, or reads of it, is still as it was written for."""

from __future__ import annotations

import inspect

import h11
from starlette.responses import PlainTextResponse
from uvicorn import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.contracts.source import assert_unchanged, module_source, source

MODULE = "uvicorn.protocols.http.h11_impl"


def test_the_protocol_is_the_one_that_was_extended() -> None:
    parameters = set(inspect.signature(Config).parameters)
    assert {"http", "timeout_graceful_shutdown", "proxy_headers"} <= parameters
    # None of these is a time within which a request's headers have to arrive.
    assert {one for one in parameters if one.startswith("timeout")} == {
        "timeout_keep_alive",
        "timeout_notify",
        "timeout_graceful_shutdown",
        "timeout_worker_healthcheck",
    }
    made = source(MODULE, "H11Protocol.__init__")
    assert all(f"self.{name}" in made for name in ("app", "loop", "conn", "transport", "cycle"))
    assert h11.Connection(h11.SERVER).their_state is h11.IDLE
    assert_unchanged(
        "api/server/connections.py: HeaderTimeoutProtocol",
        {
            f"{MODULE}:H11Protocol.connection_made": "90cf013eb407",
            f"{MODULE}:H11Protocol.connection_lost": "d17adb97a2ff",
            f"{MODULE}:H11Protocol.data_received": "98f8b4defbd3",
            f"{MODULE}:H11Protocol.send_400_response": "d2edea2ce1e1",
            f"{MODULE}:H11Protocol.on_response_complete": "247dc2f884fa",
        },
    )
    assert issubclass(H11Protocol, object)


def test_the_proxies_middleware_knows_whom_it_trusts() -> None:
    made = ProxyHeadersMiddleware(PlainTextResponse(""), ["10.0.0.0/8", "::ffff:10.0.0.0/104"])  # type: ignore[arg-type]
    assert "10.1.2.3" in made.trusted_hosts
    assert "::ffff:10.1.2.3" in made.trusted_hosts
    assert "192.0.2.1" not in made.trusted_hosts


def test_an_answer_that_is_cut_is_logged_there() -> None:
    assert 'logging.getLogger("uvicorn.error")' in source(MODULE, "H11Protocol.__init__")
    run = source(MODULE, "RequestResponseCycle.run_asgi")
    assert "except BaseException as exc" in run and "exc_info=exc" in run
    assert "timeout_graceful_shutdown" in module_source("uvicorn.server")
