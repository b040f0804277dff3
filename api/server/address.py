"""Where the server listens, and under which path a proxy in front of it shows it: read from the environment
and looked at before the seconds that the imports take, so it imports nothing but Python's own library.

Gradio (6.31) looks only at IPv4, asks 127.0.0.1 whether the port of another address is free, and takes the
next port where the owner's is taken.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import SettingError, quoted

NAME, PORT, PORTS, ROOT_PATH = (
    "GRADIO_SERVER_NAME",
    "GRADIO_SERVER_PORT",
    "GRADIO_NUM_PORTS",
    "GRADIO_ROOT_PATH",
)
HOST, FIRST_PORT, MOST_PORTS = "127.0.0.1", 7860, 100
"""Where nothing is set: on this machine alone, at the first port that is free of so many."""
ANY = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""Addresses that mean every one of this machine, and one at which it then answers itself."""


@dataclass(frozen=True)
class Address:
    """An address and a port to listen on. host_named, port_named: what named them, as GRADIO_SERVER_NAME or
    --host; empty: nothing did."""

    host: str = HOST
    port: int | None = None
    """None: the first free one of `ports`."""
    ports: range = range(FIRST_PORT, FIRST_PORT + MOST_PORTS)
    host_named: str = ""
    port_named: str = ""

    @classmethod
    def from_environment(
        cls,
        host: str | None = None,
        port: int | None = None,
        environment: MutableMapping[str, str] = os.environ,
    ) -> Address:
        """Return the address that the command line or else Gradio's variables name. The variables are left as
        Gradio can read them: without those that are empty, and GRADIO_ROOT_PATH as `root_path` returns it.

        Raises:
            SettingError: one of them can't be used.
        """
        for name in (NAME, PORT, PORTS, ROOT_PATH):
            if not environment.get(name, "").strip():
                environment.pop(name, None)
        if ROOT_PATH in environment:
            environment[ROOT_PATH] = root_path(environment[ROOT_PATH])
        named = _number(PORT, environment[PORT], 65535) if PORT in environment else None
        tries = _number(PORTS, environment[PORTS], 65535) if PORTS in environment else MOST_PORTS
        if port is not None:
            named = _number("--port", str(port), 65535)
        host_named = "--host" if host is not None else NAME if NAME in environment else ""
        return cls(
            _host(host_named, environment.get(NAME, HOST) if host is None else host),
            named,
            range(FIRST_PORT, min(FIRST_PORT + tries, 65536)),
            host_named,
            "" if named is None else PORT if port is None else "--port",
        )

    def ensure_free(self) -> None:
        """Listen there for a moment; on any port where none is named.

        Raises:
            SettingError: this machine can't listen there, or another program does.
        """
        for one in self._open(self.port or 0):
            one.close()

    def listen(self, say: Callable[[str], None] = print) -> list[socket.socket]:
        """Return sockets that listen there, all on one port: for a name, one for each of its addresses.

        Args:
            say: is told where it isn't the port that one would expect.

        Raises:
            SettingError: as of `check`, or no port is free.
        """
        if self.port is not None:
            return self._open(self.port)
        for port in self.ports:
            try:
                sockets = self._open(port)
            except _PortTaken:
                continue
            if port != self.ports[0]:
                say(f"Port {self.ports[0]} is taken: this server listens on {port}. {PORT} names another.")
            return sockets
        raise SettingError(
            f"Can't listen on {self.host}: its ports {self.ports[0]} to {self.ports[-1]} are all taken. Name "
            f"a free one in {PORT}."
        )

    def url_host(self) -> str:
        """Return how an address on this machine names the host: one that answers, also where all are
        meant."""
        return ANY.get(self.host) or (f"[{self.host}]" if ":" in self.host else self.host)

    def _open(self, port: int) -> list[socket.socket]:
        where = f"port {port} of {self.host}" if port else self.host
        try:
            found = socket.getaddrinfo(self.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (OSError, UnicodeError) as error:
            raise SettingError(
                f"Can't listen on {where}: {_words(error)}. {self.host_named or NAME} must be an address or "
                "a name of this machine: 127.0.0.1 for itself alone, 0.0.0.0 or :: for all its networks."
            ) from error
        addresses = dict.fromkeys((family, place[0]) for family, *_, place in found)
        with ExitStack() as opened:
            sockets: list[socket.socket] = []
            missing: OSError | None = None
            for family, host in addresses:
                try:
                    # Of ::, IPv4 as well: who asks for every network means it.
                    both = host == "::" and socket.has_dualstack_ipv6()
                    one = socket.create_server((str(host), port), family=family, dualstack_ipv6=both)
                except OSError as error:
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise self._refused(error, where) from error
                    missing = error  # a name may have an address of a network that isn't there, as ::1
                    continue
                # A stream's small messages go at once, not with the next one or after 40 ms. asyncio (3.12)
                # sees to that only where the socket names its protocol, which this one and those it accepts
                # don't.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets.append(opened.enter_context(one))
                port = port or one.getsockname()[1]
            if not sockets and missing is not None:
                raise self._refused(missing, where) from missing
            opened.pop_all()
        return sockets

    def _refused(self, error: OSError, where: str) -> SettingError:
        words = f"Can't listen on {where}: {_words(error)}."
        if error.errno == errno.EADDRINUSE:
            named = f" {self.port_named} names it: name another, or none, for the next that is free."
            return _PortTaken(f"{words} Another program listens there.{named if self.port_named else ''}")
        if error.errno in (errno.EACCES, errno.EPERM):
            return SettingError(
                f"{words} Ports below 1024 are the system's own: name a larger one in "
                f"{self.port_named or PORT}, and have a proxy listen on the small one."
            )
        return SettingError(
            f"{words} {self.host_named or NAME} must be an address of this machine; 0.0.0.0 means all it "
            "has, and :: those of IPv6 as well."
        )


class _PortTaken(SettingError):
    pass


def root_path(value: str) -> str:
    """Return GRADIO_ROOT_PATH as everything that reads it can use it: a path that begins with a slash, or an
    address with http:// or https://, neither with a slash at its end. Empty: the server's own address.

    Raises:
        SettingError: it is neither.
    """
    value = value.strip()
    whole = re.match(r"https?://", value, re.IGNORECASE)
    try:
        parts = urlsplit(value if whole else f"http://x/{value.removeprefix('/')}")
        good = bool(parts.hostname) and not (parts.query or parts.fragment or "@" in parts.netloc)
        good = good and not value.startswith("//")  # another host, wherever a browser reads it
        _ = parts.port
    except ValueError:
        good = False
    segments = parts.path.strip("/").split("/") if good else []
    if (
        not good
        or re.search(r"[\s\\?#<>\"]", value)
        or {"", ".", ".."} & set(segments[1:])
        or "://" in parts.path
    ):
        raise SettingError(
            f"{ROOT_PATH} must be a path, as /sd, or an address, as https://example.org/sd, without ? and #; "
            f"got {quoted(value)}."
        )
    path = "/".join(segments)
    return (
        f"{value[: whole.end()].lower()}{parts.netloc}/{path}".rstrip("/")
        if whole
        else f"/{path}".rstrip("/")
    )


def _number(name: str, value: str, most: int) -> int:
    text = value.strip()
    number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
    if not 1 <= number <= most:
        raise SettingError(f"{name} must be from 1 to {most}; got {text if number >= 0 else quoted(value)}.")
    return number


def _host(name: str, value: str) -> str:
    host = value.strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or re.search(r"[/\s%]", host) or re.fullmatch(r"[^:]*:[0-9]+", host):
        raise SettingError(
            f"{name} must be an address or a name of this machine, as 127.0.0.1, ::1 or 0.0.0.0, without "
            f"http://, a port ({PORT} has it) or an interface (%); got {quoted(value)}."
        )
    return host


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, socket.gaierror) and error.errno:
        return os.strerror(error.errno)  # its own words may have the address again
    return getattr(error, "strerror", None) or str(error)
