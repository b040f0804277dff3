"""Hugging Face as an OpenID Connect provider, which is believed nothing before it is checked. The protocol's
checks are authlib's (1.9) and joserfc's (1.8); here are those that they leave out.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from authlib.integrations.starlette_client.apps import StarletteOAuth2App
from joserfc.errors import JoseError
from starlette.requests import Request

from api.auth.hub_tokens import Person, person_of

SCOPE = "openid profile"
"""What is asked of the account: its name and organisations, nothing to be done with it."""
HOURS = 8.0
"""For which a login holds where the provider doesn't say it: the Hub's own default."""
MOST_DAYS = 30.0
"""For which a login holds at most: the Hub's own bound (hf_oauth_expiration_minutes)."""
MOST_BYTES = 2**22
"""Of one answer. An account's organisations take a few hundred bytes each."""
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
_ALGORITHMS = ("RS256", "PS256", "ES256", "RS384", "PS384", "ES384", "RS512", "PS512", "ES512", "EdDSA")
"""With which an ID token may be signed: by a key that the provider alone has."""


class InvalidLogin(Exception):
    """The provider says what can't be true, or logs nobody in."""


class ProviderFailed(Exception):
    """The provider doesn't answer, or not with an answer that can be read."""


class Discovered(StarletteOAuth2App):
    """authlib's app, which takes from the provider's discovery document only what is checked here. authlib
    takes all of it for arguments of its HTTP client, `verify` and `proxy` among them. Can go when it takes
    the endpoints alone."""

    server_metadata: dict[str, Any]
    url = ""
    """The provider's."""

    async def load_server_metadata(self) -> dict[str, Any]:
        if "_loaded_at" not in self.server_metadata:
            said = await super().load_server_metadata()
            self.server_metadata = {}
            self.server_metadata = _checked_metadata(said, self.url)
        return self.server_metadata


class OpenId:
    """One app's logins at the provider."""

    def __init__(self, client_id: str, client_secret: str, url: str, seconds: float) -> None:
        """
        Args:
            url: the provider's.
            seconds: within which all must have been answered that one step of a login asks.
        """
        self._client_id, self._url, self._seconds = client_id, url, seconds
        self._app: Any = OAuth().register(
            name="huggingface",
            client_cls=Discovered,
            client_id=client_id,
            client_secret=client_secret,
            client_kwargs={
                "scope": SCOPE,
                "code_challenge_method": "S256",
                "timeout": seconds,
                "headers": {"Accept-Encoding": "identity"},
                "event_hooks": {"response": [_bound_answer]},
            },
            server_metadata_url=f"{url}/.well-known/openid-configuration",
        )
        self._app.url = url

    async def redirect(self, request: Request, back: str) -> Any:
        """Return the answer that leads a browser to the provider.

        Args:
            back: the address to which the provider leads it back.

        Raises:
            ProviderFailed: as it says.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._app.authorize_redirect(request, back)
        except Exception as error:  # whatever an answer does to the libraries
            raise ProviderFailed from error

    async def has_begun(self, request: Request) -> bool:
        """Whether this browser began the login from which it comes back."""
        state = request.query_params.get("state")
        return await self._app.framework.get_state_data(request.session, state) is not None

    async def person(self, request: Request) -> tuple[Person, float]:
        """Return who comes back from the provider, and for how many seconds it vouches for them.

        Raises:
            InvalidLogin, ProviderFailed: as they say.
        """
        try:
            async with asyncio.timeout(self._seconds):
                return await self._person(request)
        except (InvalidLogin, AuthlibBaseError, JoseError) as error:
            self._forget_keys()
            raise InvalidLogin from error
        except Exception as error:  # whatever an answer does to the libraries
            self._forget_keys()
            raise ProviderFailed from error

    async def _person(self, request: Request) -> tuple[Person, float]:
        # Of several providers one could send another's code here (RFC 9207); the Hub doesn't say it (2026).
        if request.query_params.get("iss", self._url).rstrip("/") != self._url:
            raise InvalidLogin
        metadata = await self._app.load_server_metadata()
        claims = {
            "iss": {"essential": True, "value": metadata["issuer"]},
            "aud": {"essential": True, "value": self._client_id},
            "sub": {"essential": True},
        }
        token = await self._app.authorize_access_token(request, claims_options=claims)
        seconds = _seconds(token.get("expires_in"))
        # Without an ID token `userinfo` would be what the answer says itself, unsigned.
        if "id_token" not in token or str(token.get("token_type")).lower() != "bearer":
            raise InvalidLogin
        subject = token["userinfo"]["sub"]
        access = {"access_token": token["access_token"], "token_type": "bearer"}  # nothing that is renewed
        about = await self._app.userinfo(token=access)
        # The same one's (OpenID Connect Core 1.0, 5.3.2).
        if not isinstance(subject, str) or not subject or about["sub"] != subject:
            raise InvalidLogin
        # One who must still satisfy an organisation's security rules isn't in it yet.
        theirs = [one for one in about.get("orgs") or () if not one.get("securityRestrictions")]
        person = person_of(about.get("preferred_username"), [one["preferred_username"] for one in theirs])
        if person is None:
            raise InvalidLogin
        return person, seconds

    def _forget_keys(self) -> None:
        """Have the provider's keys fetched again next time: authlib keeps whatever came."""
        self._app.server_metadata.pop("jwks", None)


def _checked_metadata(said: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return what is kept of a discovery document.

    Raises:
        InvalidLogin: it isn't this provider's, or leads elsewhere.
    """
    issuer, algorithms = said.get("issuer"), said.get("id_token_signing_alg_values_supported", ["RS256"])
    if not isinstance(issuer, str) or issuer.rstrip("/") != url:
        raise InvalidLogin
    if not all(_is_on_host(url, said.get(name)) for name in _ENDPOINTS):
        raise InvalidLogin
    strong = [algorithm for algorithm in _ALGORITHMS if algorithm in algorithms]
    if not strong:
        raise InvalidLogin
    kept = {name: said[name] for name in ("issuer", *_ENDPOINTS, "_loaded_at")}
    return {**kept, "id_token_signing_alg_values_supported": strong}


def _is_on_host(url: str, address: object) -> bool:
    """Whether this address is on the provider's own host, reached the same way."""
    if not isinstance(address, str):
        return False
    at, own = urlsplit(address), urlsplit(url)
    return (at.scheme, at.netloc) == (own.scheme, own.netloc) and not at.fragment


def _seconds(said: Any) -> float:
    """Return for how long a login holds."""
    seconds = HOURS * 3600 if said is None else float(said)
    if not math.isfinite(seconds) or seconds <= 0:
        raise InvalidLogin
    return min(seconds, MOST_DAYS * 24 * 3600)


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of an answer, of which no more than MOST_BYTES are read."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for piece in self._stream:
            length += len(piece)
            if length > MOST_BYTES:
                raise ProviderFailed
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_answer(answer: httpx2.Response) -> None:
    """Make no more of an answer be read than MOST_BYTES, and nothing be unpacked."""
    if answer.headers.get("content-encoding", "identity") != "identity" or answer.status_code >= 500:
        raise ProviderFailed
    assert isinstance(answer.stream, httpx2.AsyncByteStream)
    answer.stream = _BoundedStream(answer.stream)
