"""Keys that programs send (STEPWISE_API_KEYS), and what is common to all secrets that can be guessed: how
they are compared, and how many wrong ones an address may send.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.guard.access import ACCESS, REFUSE
from api.guard.sites import SITE
from api.visitor import address_of
from jobs.scheduling.rate_limit import RateLimit
from pipeline.errors import RateLimited

KEY = "stepwise.key"
"""Of an ASGI scope: which of the keys was sent, by the first 16 hex digits of its digest; not there where
none was."""
GUESSES = "5/minute, 50/hour"
"""Wrong passwords, tokens or keys from one address, after which it is told to wait."""
LONG_KEY = 16
"""Characters from which on nobody finds a key by guessing: of random letters and digits, at a million a
second, 10¹⁵ years."""


def access_notice(keys: Sequence[SecretStr], who: str = "") -> str:
    """Return the line at the start that says who may use the routes.

    Args:
        who: may log in (STEPWISE_LOGIN), and how; empty: there is no login.
    """
    if who:
        also = f", or on /v1 and /mcp one of the {len(keys)} keys in STEPWISE_API_KEYS" if keys else ""
        return f"All but /livez, /readyz and the login page asks for a login, {who}{also}."
    if not keys:
        return "No STEPWISE_API_KEYS: /v1 and /mcp are open to everyone who reaches this address."
    return (
        f"/v1 and /mcp ask for a key, one of the {len(keys)} in STEPWISE_API_KEYS. The page and Gradio's own "
        "endpoints (/gradio_api) do not."
    )


class AskForKey:
    """Middleware that lets through to programs' routes whoever sends `Authorization: Bearer` and one of the
    keys; everyone where there are no keys.

    An address that sent too many wrong keys (GUESSES) is told to wait, as one with wrong passwords. A right
    key never counts, and a long one is let in meanwhile, too: nobody finds it by guessing, while those behind
    one NAT, or behind a proxy that isn't named, all have one address, and a stranger's wrong keys would shut
    them out. A shorter one can be guessed, as a password can: while its address must wait, right or wrong
    isn't looked at.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        self._app = app
        # Digests: equally long, so that the time of a comparison doesn't tell a key's length.
        self._keys = [digest(key.get_secret_value().encode()) for key in keys]
        self._is_long = [len(key.get_secret_value()) >= LONG_KEY for key in keys]
        self._guesses = RateLimit(GUESSES, doing="wrong keys")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = self._keys and scope["type"] == "http" and scope[ACCESS].who == "program"
        if not asks or self.known(scope):
            await self._app(scope, receive, send)
            return
        try:
            self.count(scope)
        except RateLimited as error:
            await scope[REFUSE](429, str(error), waiting(error))(scope, receive, send)
            return
        words = (
            "This server asks for a key: send one of its keys as “Authorization: Bearer …”."
            if "authorization" not in Headers(scope=scope)
            else "This is none of the server's keys; it expects one as “Authorization: Bearer …”."
        )
        await scope[REFUSE](401, words, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def known(self, scope: Scope) -> bool:
        """Whether the request has one of the keys, and, where that is a short one, its address needn't
        wait."""
        given = digest(_bearer(scope))
        try:
            self._guesses.allow(_guesser(scope))
        except RateLimited:
            waits = True
        else:
            waits = False
        # Every key is compared, whichever of them it is.
        same = [hmac.compare_digest(given, known) for known in self._keys]
        is_known = any([one and (long or not waits) for one, long in zip(same, self._is_long, strict=True)])  # noqa: C419
        if is_known:
            scope[KEY] = given.hex()[:16]
        return is_known

    def count(self, scope: Scope) -> None:
        """Count the key of a request that isn't known, if it has any, as a wrong one. There is no await
        between the two, so of guesses that come at once each counts.

        Raises:
            RateLimited: too many wrong ones came from this address; this one isn't counted.
        """
        if self._keys and _bearer(scope):
            self._guesses.hit(_guesser(scope))


def _guesser(scope: Scope) -> str:
    """Return whose guesses are counted together: an address'; apart from them those that another site's page
    makes in a browser there, so that it doesn't use up its visitor's."""
    return f"{address_of(scope)}{' (another site)' if scope.get(SITE) == 'other' else ''}"


def _bearer(scope: Scope) -> bytes:
    """Return what the request has as its key, or an empty text where it has none, or two headers, of which
    neither is read."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    return key.strip() if scheme.lower() == b"bearer" else b""


def waiting(error: RateLimited) -> dict[str, str]:
    """Return the header that says when to come back to whoever has guessed too often."""
    return {"Retry-After": f"{round(error.retry_after or 60) + 1}"}


def digest(key: bytes) -> bytes:
    """Return the SHA-256 that is kept and compared in a secret's place."""
    return hashlib.sha256(key).digest()
