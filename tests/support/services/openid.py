"""A stand-in for the Hub's login on this machine, for what can't be reached from a test: OpenID Connect
with a page to agree on (discovery, authorize, token, keys, userinfo), and whoami for access tokens. It checks
what a provider must: the app's secret, the redirect URL, the code and its PKCE verifier, once; and it lies
where a test tells it to.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "a-client-id", "a-client-secret-0123456789"
PAGE = """<!doctype html><title>Stand-in for the Hub</title><h1>Not Hugging Face: a stand-in for tests</h1>
<a href="{yes}">Authorize</a> <a href="{no}">Cancel</a>"""
DISCOVERY = "/.well-known/openid-configuration"
LEFT_OUT: Any = object()
"""In a lie: that a provider doesn't say it at all."""


class Answer(NamedTuple):
    """What is answered in place of the right thing. pieces: bytes, each after so many seconds."""

    status: int = 200
    pieces: tuple[tuple[float, bytes], ...] = ()
    headers: Mapping[str, str] = {"Content-Type": "application/json"}

    @classmethod
    def of(cls, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        return cls(status, ((0, body),), headers or cls().headers)


@dataclass
class OpenIdProvider:
    """What it knows, how it misbehaves, and what it was asked.

    person, organisations: who is logged in there. tokens: access tokens, each with what whoami answers.
    forge: signs ID tokens with a key that isn't its own. refuse: the status that whoami answers with.

    lies: what it says otherwise, by what says it (discovery, claims: the ID token's, token, userinfo), by the
    field; a value may be LEFT_OUT. sign: makes the ID token of its claims. answers: what else it answers, by
    the path.
    """

    url: str = ""
    callback: str = ""
    person: str = "ann"
    organisations: tuple[str, ...] = ()
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    forge: bool = False
    refuse: int | None = None
    asked: list[str] = field(default_factory=list)
    """Access tokens that whoami was asked about."""
    given: list[str] = field(default_factory=list)
    """Codes and OAuth tokens that were given out."""
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "own"}))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    lies: dict[str, dict[str, Any]] = field(default_factory=dict)
    sign: Callable[[dict[str, Any]], str] | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    """Paths that were asked for."""

    def said(self, what: str, **truth: Any) -> dict[str, Any]:
        """What is said there: the truth, and the lies."""
        told = truth | self.lies.get(what, {})
        return {name: value for name, value in told.items() if value is not LEFT_OUT}

    def id_token(self, nonce: str | None) -> str:
        now = int(time.time())
        claims = self.said("claims", iss=self.url, aud=CLIENT, sub="1", iat=now, exp=now + 600, nonce=nonce)
        if self.sign:
            return self.sign(claims)
        key = RSAKey.generate_key(2048, {"kid": "own"}) if self.forge else self.key
        return jwt.encode({"alg": "RS256", "kid": "own"}, claims, key, ["RS256"])

    def add(self, token: str, name: str, *organisations: str, kind: str = "access_token") -> str:
        """A token of this user's; gives it."""
        orgs = [{"type": "org", "name": one} for one in organisations]
        self.tokens[token] = {"type": "user", "name": name, "orgs": orgs, "auth": {"type": kind}}
        return token

    def environment(self) -> dict[str, str]:
        """What a server needs to log in here."""
        return {
            "OAUTH_CLIENT_ID": CLIENT,
            "OAUTH_CLIENT_SECRET": SECRET,
            "OPENID_PROVIDER_URL": self.url,
            "HF_ENDPOINT": self.url,
            "HF_HUB_OFFLINE": "0",
        }


@contextlib.contextmanager
def serve_openid() -> Iterator[OpenIdProvider]:
    """A running one."""
    provider = OpenIdProvider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": provider}))
    provider.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    provider: OpenIdProvider

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        url, token = self.provider.url, (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.provider.requests.append(address.path)
        if address.path in self.provider.answers:
            self._answer(self.provider.answers[address.path])
        elif address.path == DISCOVERY:
            self._json(
                self.provider.said(
                    "discovery",
                    issuer=url,
                    authorization_endpoint=f"{url}/oauth/authorize",
                    token_endpoint=f"{url}/oauth/token",
                    userinfo_endpoint=f"{url}/oauth/userinfo",
                    jwks_uri=f"{url}/oauth/jwks",
                    id_token_signing_alg_values_supported=["RS256"],
                )
            )
        elif address.path == "/favicon.ico":
            self._send(200, "image/svg+xml", b"")
        elif address.path == "/oauth/jwks":
            self._json({"keys": [self.provider.key.as_dict(private=False)]})
        elif address.path == "/oauth/authorize":
            self._authorize(query)
        elif address.path == "/oauth/userinfo" and token in self.provider.given:
            orgs = [{"preferred_username": one} for one in self.provider.organisations]
            person = self.provider.person
            self._json(self.provider.said("userinfo", sub="1", preferred_username=person, orgs=orgs))
        elif address.path == "/api/whoami-v2":
            self.provider.asked.append(token)
            if self.provider.refuse:
                self._json({"error": "The stand-in refuses."}, self.provider.refuse)
            elif token in self.provider.tokens:
                self._json(self.provider.tokens[token])
            else:
                self._json({"error": "Invalid credentials in Authorization header"}, 401)
        else:
            self._json({"error": "Not found"}, 404)

    def _authorize(self, query: dict[str, str]) -> None:
        right = {"client_id": CLIENT, "response_type": "code", "redirect_uri": self.provider.callback}
        if any(query.get(name) != value for name, value in right.items()):
            self._json({"error": "invalid_request"}, 400)
            return
        code = secrets.token_urlsafe(16)
        self.provider.codes[code] = query
        self.provider.given.append(code)
        back = f"{query['redirect_uri']}?"
        yes = back + urlencode({"code": code, "state": query["state"]})
        no = back + urlencode(
            {"error": "access_denied", "error_description": "<b>no</b>", "state": query["state"]}
        )
        text = PAGE.format(yes=yes.replace("&", "&amp;"), no=no.replace("&", "&amp;"))
        self._send(200, "text/html", text.encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self.provider.codes.pop(form.get("code", ""), None)
        self.provider.requests.append(self.path)
        if self.path in self.provider.answers:
            self._answer(self.provider.answers[self.path])
        elif self.path != "/oauth/token" or self.headers.get("Authorization") != f"Basic {basic}":
            self._json({"error": "invalid_client"}, 401)
        elif asked is None or form.get("redirect_uri") != asked["redirect_uri"] or not _proves(form, asked):
            self._json({"error": "invalid_grant", "error_description": "no such code"}, 400)
        else:
            token = f"hf_oauth_{secrets.token_urlsafe(16)}"
            self.provider.given.append(token)
            self._json(
                self.provider.said(
                    "token",
                    access_token=token,
                    token_type="bearer",
                    expires_in=28800,
                    id_token=self.provider.id_token(asked.get("nonce")),
                )
            )

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked has gone
            for seconds, piece in answer.pieces:
                time.sleep(seconds)
                self.wfile.write(piece)

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)


def _proves(form: dict[str, str], asked: dict[str, str]) -> bool:
    """PKCE (RFC 7636): whether who brings the code also began the login."""
    made = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(made).decode().rstrip("=") == asked.get("code_challenge")
