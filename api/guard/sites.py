"""From where a request comes: which host's name it was sent to, and whose page sent it. A browser lends any
page that it shows its way into private networks, its cookies and its passwords; this is what tells the
server's own page from others.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from pipeline.errors import SettingError, quoted

SITE = "stepwise.site"
"""Of an ASGI scope: its Sender (guard.py puts it there)."""
Sender = Literal["own", "link", "other", "unknown"]
"""own: the server's page sent it, or its visitor typed the address. link: a page of another site leads to it,
whose script can't read the answer. other: a page of another site sent it. unknown: nothing says that a
browser sent it."""
HUGGING_FACE = "https://huggingface.co"
EVERY = "*"
_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa", ".test")
"""What names end with that the public DNS doesn't have (RFC 6761, 6762, 8375; ICANN's .internal): no site can
make one of its own point to this server."""
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_AUTHORITY = re.compile(r"([A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
"""As a browser writes a Host: a name (one with other letters in Punycode) or an address, and a port."""


@dataclass(frozen=True)
class Sites:
    """The names and sites that the server knows. hosts: names that it answers to, besides addresses in
    numbers and names that only a private network has; EVERY: all; one that begins with a dot: all that end
    so. origins: whose pages may call what is open to everyone; EVERY: all. frames: whose pages may show the
    server's in a frame; EVERY: all."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    frames: tuple[str, ...] = (HUGGING_FACE,)

    @classmethod
    def from_settings(
        cls, hosts: Collection[str], origins: Collection[str] | None, frames: Collection[str] | None
    ) -> Sites:
        """Return what STEPWISE_HOSTS, STEPWISE_ORIGINS, STEPWISE_FRAMES and the platform name.

        Args:
            origins, frames: None: not set. A Space is public, and every site's page may call it as on any.
        """
        known = {host.lower().rstrip(".") for host in (*hosts, *_own_names())}
        if origins is None:
            origins = (EVERY,) if os.environ.get("SPACE_ID") else ()
        return cls(
            frozenset(known),
            frozenset(origin.lower() for origin in origins),
            cls.frames if frames is None else tuple(frames),
        )

    def answers_to(self, host: str) -> bool:
        """Whether a Host header's name is one of the server's. Another one may be a stranger's, who made it
        point here (DNS rebinding), so that the stranger's page counts as the server's own."""
        name = _name(host)
        if name is None:
            return False
        if EVERY in self.hosts or name in self.hosts or "." not in name or name.endswith(_PRIVATE):
            return True
        return _is_address(name) or any(name.endswith(end) for end in self.hosts if end.startswith("."))

    def let_in(self, origin: str | None) -> bool:
        """Whether this site's pages may call what is open to everyone: those of the sites in `origins`, those
        on the visitor's own machine, and what an app shows that is no site.

        Args:
            origin: the header; None: it is not there.
        """
        if EVERY in self.origins:
            return True
        return origin is not None and (origin.lower() in self.origins or _is_local(origin))

    @property
    def policy(self) -> str:
        """Return the Content-Security-Policy of every answer."""
        if EVERY in self.frames:
            return ""
        return " ".join(("frame-ancestors", "'self'", *self.frames))


def site_of(headers: Headers, method: str, host: str) -> Sender:
    """Return whose page sent this request.

    Args:
        host: the name and port under which its sender knows the server.
    """
    reads = method in ("GET", "HEAD")
    if (relation := headers.get("sec-fetch-site")) is not None:
        if relation in ("same-origin", "none"):
            return "own"
        return "link" if reads and headers.get("sec-fetch-mode") == "navigate" else "other"
    # A browser says no more over plain http, but on localhost; nor do old ones.
    if (origin := headers.get("origin")) is not None:
        return "own" if _authority(origin) == _authority(f"//{host}") else "other"
    if (referer := headers.get("referer")) is not None:
        if _authority(referer) == _authority(f"//{host}"):
            return "own"
        return "link" if reads else "other"
    return "unknown"


def host_of(headers: Headers) -> str:
    """Return the name and port under which the sender knows the server: what a named proxy says, where it
    hands one on (server/forwarded.py removes what others say)."""
    forwarded = headers.get("x-forwarded-host", "").split(",")[0].strip()
    return forwarded or headers.get("host", "")


def navigates(headers: Headers) -> bool:
    """Whether a browser shows the answer as a page."""
    mode = headers.get("sec-fetch-mode")
    return mode == "navigate" if mode is not None else "text/html" in headers.get("accept", "")


def setting_for(host: str) -> str:
    """Return the setting that makes the server answer to a Host header's name, as STEPWISE_HOSTS=name, or an
    empty text where it holds none that could be set."""
    name = _name(host)
    return f"STEPWISE_HOSTS={name}" if name and _HOST.fullmatch(name) else ""


def is_browser(headers: Headers) -> bool:
    """Whether a browser sent this, whichever page it is for: over plain http a page can hide everything but
    the browser's own name."""
    page = any(name in headers for name in ("sec-fetch-site", "origin", "referer"))
    return page or navigates(headers) or headers.get("user-agent", "").startswith("Mozilla/")


def host_name(value: str, setting: str) -> str:
    """Return an entry of STEPWISE_HOSTS as it is compared.

    Raises:
        SettingError: it is no name of a host.
    """
    name = value.lower()
    if name == EVERY or _HOST.fullmatch(name.removeprefix(".")):
        return name
    raise SettingError(
        f"{setting}: {quoted(value)} is no host's name: write one such as draw.example.org, without http:// "
        "and a port; .example.org means all that end so, and * every name. Separate names by commas."
    )


def origin_of_site(value: str, setting: str) -> str:
    """Return an entry of STEPWISE_ORIGINS or STEPWISE_FRAMES as it is compared.

    Raises:
        SettingError: it is no site's address.
    """
    try:
        parts = urlsplit(value.lower().rstrip("/"))
        good = parts.scheme in ("http", "https") and bool(_HOST.fullmatch(parts.hostname or ""))
        good = good and parts.netloc == parts.netloc.rpartition("@")[2] and parts.port != 0
        good = good and not (parts.path or parts.query or parts.fragment)
    except ValueError:
        good = False
    if value != EVERY and not good:
        raise SettingError(
            f"{setting}: {quoted(value)} is no site: write one as https://example.org, without a path; "
            "* means every site. Separate sites by commas."
        )
    return value.lower().rstrip("/")


def _own_names() -> list[str]:
    names = [socket.gethostname(), os.environ.get("GRADIO_SERVER_NAME", "")]
    if root := urlsplit(os.environ.get("GRADIO_ROOT_PATH", "")).hostname:
        names.append(root)
    if os.environ.get("SPACE_ID"):  # a list where the Space has a domain of its own
        names += [name.strip() for name in os.environ.get("SPACE_HOST", "").split(",")]
        names += [".hf.space", "huggingface.co", ".huggingface.co"]  # what its proxies may hand on
    return [name for name in names if name.strip(".")]


def is_host(host: str) -> bool:
    """Whether a browser can have written this Host. Gradio and httpx make addresses of it."""
    return bool(_AUTHORITY.fullmatch(host)) and _authority(f"//{host}") is not None


def _name(host: str) -> str | None:
    """Return the name in a Host header without its port, or None if it holds none."""
    authority = _authority(f"//{host}") if is_host(host) else None
    return None if authority is None else authority[0].rstrip(".")


def _authority(address: str) -> tuple[str, int | None] | None:
    """Return an address' host and port, without the usual ports of http and https, or None if it has no
    host."""
    try:
        parts = urlsplit(address)
        if not parts.hostname or "@" in parts.netloc:
            return None
        return parts.hostname, None if parts.port in (80, 443) else parts.port
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def _is_local(origin: str) -> bool:
    """Whether this is the origin of a page on the visitor's own machine, or of an app's own window, as
    vscode-webview://; a sandboxed page's is "null"."""
    try:
        parts = urlsplit(origin)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return bool(parts.scheme)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
