"""HTTP requests that nobody means: hypothesis strategies for every part of one, each as likely as not to be
what the route expects; and the bytes that go over the connection. What an answer should be isn't known here.
"""

from __future__ import annotations

import gzip
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.security.support.odd import (
    FAMILIES,
    HEADERS,
    HOSTS,
    KEYS,
    LIKELY,
    METHODS,
    NAMES,
    ODD_KEYS,
    ODD_TEXTS,
    QUERIES,
    RAW_PARTS,
    SCALARS,
    SHAPES,
)

Framing = Literal[
    "length", "chunked", "endless chunks", "too long", "too short", "twice", "no number", "none"
]
"""How a body's end is told: rightly by the first two and the last, which sends no body."""
HONEST: tuple[Framing, ...] = ("length", "chunked", "none")

STREAMS = re.compile(r"/(heartbeat/|queue/data|call/)|^/mcp|^/v1/images")
"""Paths whose answers may go on for ever."""


@dataclass(frozen=True)
class Request:
    """One request. target: the path and the query, as sent. headers: without those that frame the body. host:
    None: it is left out, as only HTTP/1.0 may."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    framing: Framing = "none"
    host: str | None = "127.0.0.1"
    version: str = "1.1"

    @property
    def honest(self) -> bool:
        """Whether it ends where it says: a server may wait for the rest of another."""
        names = {name.lower() for name, _ in self.headers}
        return self.framing in HONEST and not names & {"upgrade", "connection", "expect"}

    @property
    def streams(self) -> bool:
        return bool(STREAMS.search(re.sub("/+", "/", unquote(self.target))))

    def raw(self) -> bytes:
        """As it is sent. The connection is to be closed after it."""
        lines = [f"{self.method} {self.target} HTTP/{self.version}"]
        if self.host is not None:
            lines.append(f"Host: {self.host}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not any(name.lower() == "connection" for name, _ in self.headers):
            lines.append("Connection: close")
        length, body = len(self.body), self.body
        match self.framing:
            case "length":
                lines.append(f"Content-Length: {length}")
            case "chunked" | "endless chunks":
                lines.append("Transfer-Encoding: chunked")
                chunks = [body[start : start + 7] for start in range(0, len(body), 7)][:50]
                rest = body[350:]
                chunks += [rest] if rest else []
                body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
                body += b"0\r\n\r\n" if self.framing == "chunked" else b""
            case "too long":
                lines.append(f"Content-Length: {length + 10}")
            case "too short":
                lines.append(f"Content-Length: {max(0, length - 3)}")
            case "twice":
                lines += [f"Content-Length: {length}", "Transfer-Encoding: chunked"]
            case "no number":
                lines.append("Content-Length: -1")
            case "none":
                body = b""
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + body


def ask(server: str, request: Request, patience: float, moment: float = 0.2) -> tuple[int, bytes]:
    """The answer's status and its first 64 KB; the status is 0 where none came.

    Args:
        patience: seconds for the whole answer. moment: seconds for one that may go on for ever, or that waits
            for what this request promised and didn't send.

    Raises:
        TimeoutError: a whole request had no whole answer.
    """
    where = urlsplit(server)
    brief = request.streams or not request.honest
    answer, end = b"", time.monotonic() + patience
    with socket.create_connection((where.hostname, where.port), timeout=moment if brief else patience) as one:
        try:
            one.sendall(request.raw())
            while len(answer) < 65536 and (piece := one.recv(65536)):
                answer += piece
                if time.monotonic() > end:
                    raise TimeoutError
        except (ConnectionResetError, BrokenPipeError):
            pass  # it said all it had to before it had read everything
        except TimeoutError:
            if not brief:
                raise
    found = re.match(rb"(?:HTTP/1\.[01] 1\d\d .*?\r\n\r\n)*HTTP/1\.[01] (\d{3}) ", answer, re.DOTALL)
    return int(found[1]) if found else 0, answer


def filled(template: str) -> SearchStrategy[str]:
    """A route's path with something in its parameters, and sometimes written in another way."""
    parameter = st.one_of(
        st.sampled_from(NAMES),
        st.sampled_from(ODD_TEXTS).map(lambda text: quote(text, safe="")),
        st.sampled_from(RAW_PARTS),
        st.text(st.characters(codec="utf-8"), max_size=10).map(lambda text: quote(text, safe="")),
    )
    parts = re.split(r"{[^}]*}", template)

    def join(values: list[str]) -> str:
        return "".join(part + value for part, value in zip(parts, [*values, ""]))

    path = st.lists(parameter, min_size=len(parts) - 1, max_size=len(parts) - 1).map(join)
    changes = (
        lambda path: path + "/", lambda path: path + "%0a", lambda path: path.upper(),
        lambda path: "/" + path,
        lambda path: path + "%00", lambda path: path + "/..", lambda path: path.replace("/", "//"),
        lambda path: path + ".json", lambda path: "http://127.0.0.1" + path, lambda path: path.replace("/",
        "%2f"),
        lambda path: path + "#a", lambda path: path[1:], lambda path: "/x/.." + path,
        lambda path: path + "x" * 9000,
    )  # fmt: skip
    as_it_is = [lambda path: path] * (3 * len(changes))
    return st.builds(lambda path, change: change(path), path, st.sampled_from((*as_it_is, *changes)))


def queries() -> SearchStrategy[str]:
    value = st.sampled_from(ODD_TEXTS).map(lambda text: quote(text)) | st.sampled_from((*NAMES, *RAW_PARTS))
    pair = st.builds(lambda name, value: f"{name}={value}", st.sampled_from(QUERIES), value)
    odd = st.sampled_from(("", "&", "=", "&&=&", "%", "?", "a" * 3000, "session_hash", "a=b&" * 300))
    return st.just("") | st.lists(pair, min_size=1, max_size=3).map("&".join) | odd


def headers(real: Mapping[str, str]) -> SearchStrategy[tuple[tuple[str, str], ...]]:
    """real: a value that means something on this server, of headers that have one."""

    def named(name: str) -> SearchStrategy[tuple[str, str]]:
        odd = st.sampled_from(HEADERS[name])
        value = st.just(real[name]) | odd if name in real else odd
        return st.tuples(st.just(name), value)

    one = st.sampled_from(sorted(HEADERS)).flatmap(named)
    some = st.lists(one, max_size=4, unique_by=lambda pair: pair[0]).map(tuple)
    family = st.sampled_from(FAMILIES).flatmap(lambda names: st.tuples(*map(named, names)))
    return st.one_of(some, some, family)


def values() -> SearchStrategy[str]:
    """JSON, or nearly."""
    key = st.sampled_from(KEYS).map(lambda name: f'"{name}"') | st.sampled_from(ODD_KEYS)

    def deeper(inner: SearchStrategy[str]) -> SearchStrategy[str]:
        pair = st.builds(lambda name, value: f"{name}:{value}", key, inner)
        return (
            st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")
            | st.lists(pair, max_size=4).map(lambda pairs: "{" + ",".join(pairs) + "}")
        )  # fmt: skip

    return st.recursive(st.sampled_from(SCALARS), deeper, max_leaves=5)


VALUES = values()


def objects(functions: Mapping[int, int]) -> SearchStrategy[str]:
    """Bodies with the keys that routes expect: most values right, some not; now and then a key too many, or
    twice.

    Args:
        functions: how many inputs each of the page's functions has, by its number.
    """
    numbers = st.sampled_from([str(one) for one in functions] or ["0"])
    lists = st.sampled_from(sorted(set(functions.values()) | {0, 1})).flatmap(
        lambda length: st.lists(
            st.just("null") | st.just('"a fox"') | st.just("1") | VALUES, min_size=length, max_size=length
        )
    )
    likely = {
        **{key: st.sampled_from(known) for key, known in LIKELY.items()},
        "fn_index": numbers,
        "data": lists.map(lambda items: f"[{','.join(items)}]"),
    }

    def pair(key: str) -> SearchStrategy[str]:
        right = likely.get(key, st.just('"a"'))
        value = st.one_of(right, right, right, VALUES)
        return value.map(lambda value: f'"{key}":{value}')

    def pairs(keys: Sequence[str]) -> SearchStrategy[list[str]]:
        more = st.lists(
            st.sampled_from(KEYS).flatmap(pair)
            | st.builds("{}:{}".format, st.sampled_from(ODD_KEYS), VALUES),
            max_size=1,
        )
        return st.builds(lambda some, more: [*some, *more], st.tuples(*map(pair, keys)), st.just([]) | more)

    return st.sampled_from(SHAPES).flatmap(pairs).map(lambda all_: "{" + ",".join(all_) + "}")


def bodies(functions: Mapping[int, int]) -> SearchStrategy[tuple[str | None, bytes]]:
    """A body and its content type; None: whatever the headers say, or nothing."""

    def encoded(text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass")

    json_text = st.one_of(objects(functions), objects(functions), VALUES)
    as_json = st.tuples(st.just("application/json"), json_text.map(encoded))
    spoilt = st.tuples(
        st.sampled_from(("application/json", None)),
        json_text.flatmap(
            lambda text: st.sampled_from(
                (
                    encoded(text)[:-1], encoded(text)[: len(text) // 2] + b"\xff",
                    b"\xef\xbb\xbf" + encoded(text),
                    text.encode("utf-16", "surrogatepass"), encoded(text) + b"\x00", encoded(text) * 2,
                    gzip.compress(encoded(text), mtime=0), b"", b"\xc3", b"\xed\xa0\x80",
                    encoded(text) + b"\xe2\x82",
                )
            )
        ),
    )  # fmt: skip
    field = st.builds(
        lambda name, value: f"{quote(name)}={quote(value)}",
        st.sampled_from(("username", "password", "grant_type", "scope", "client_id", "a")),
        st.sampled_from((*ODD_TEXTS, "password")),
    )
    form = st.tuples(
        st.just("application/x-www-form-urlencoded"),
        st.lists(field, max_size=4).map(lambda fields: "&".join(fields).encode())
        | st.sampled_from((b"%", b"&&==", b"\xff=\xfe", b"a=1&" * 2000, b"username=%ff&password=%ed%a0%80")),
    )
    return st.one_of(as_json, as_json, as_json, spoilt, form, multiparts(), st.just((None, b"")))


def multiparts() -> SearchStrategy[tuple[str | None, bytes]]:
    disposition = st.sampled_from(
        ('form-data; name="username"', 'form-data; name="password"', 'form-data; name="a"; filename="b.png"',
         "form-data", "form-data; name=", 'form-data; name="\u00e9"', "attachment", "",
         'form-data; name="username"; filename="../../x"', "form-data; name*=utf-8''%ff", "a" * 3000),
    )  # fmt: skip
    content = st.sampled_from((b"", b"a", b"ann", b"\xff\xfe", b"--b", b"x" * 3000, b"\r\n--b--\r\n"))
    part = st.builds(
        lambda how, what: b"--b\r\nContent-Disposition: " + how.encode() + b"\r\n\r\n" + what + b"\r\n",
        disposition,
        content,
    )
    end = st.sampled_from((b"--b--\r\n", b"--b--", b"--b", b"", b"--c--\r\n", b"\r\n"))
    body = st.builds(lambda parts, end: b"".join(parts) + end, st.lists(part, max_size=4), end)
    many = part.map(lambda one: one * 1200 + b"--b--\r\n")
    kind = st.sampled_from(
        ("multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=",
         "multipart/form-data; boundary=\u00e9", "multipart/form-data; boundary=" + "b" * 3000)
    )  # fmt: skip
    return st.tuples(kind, st.one_of(body, body, body, many))


def requests(
    routes: Sequence[tuple[str, str]],
    functions: Mapping[int, int],
    real: Mapping[str, str],
    always: tuple[tuple[str, str], ...] = (),
) -> SearchStrategy[Request]:
    """Requests to these routes.

    Args:
        routes: method and path of each, with its parameters in braces.
        functions: as of `objects`. real: as of `headers`.
        always: headers that each has, as a login's cookie.
    """
    framings: list[Framing] = ["length"] * 12 + ["chunked"] * 3
    framings += ["endless chunks", "too long", "too short", "twice", "no number"]

    def build(
        method: str, other: str | None, path: str, query: str, some: tuple[tuple[str, str], ...],
        body: tuple[str | None, bytes], framing: Framing, host: str, version: str,
    ) -> Request:  # fmt: skip
        kind, content = body
        some = (*always, *(pair for pair in some if pair[0] not in dict(always)))
        if kind is not None and not any(name == "Content-Type" for name, _ in some):
            some = (*some, ("Content-Type", kind))
        no_body = not content and kind is None
        return Request(
            method=other or method,
            target=path + (f"?{query}" if query else ""),
            headers=some,
            body=content,
            framing="none" if no_body else framing,
            host=None if version == "1.0" and host == "" else host,
            version="1.0" if version == "1.0" else "1.1",
        )

    def to(route: tuple[str, str]) -> SearchStrategy[Request]:
        method, template = route
        return st.builds(
            build,
            st.just(method),
            st.sampled_from([None] * 30 + list(METHODS)),
            filled(template),
            queries(),
            headers(real),
            bodies(functions) if method == "POST" else st.just((None, b"")) | bodies(functions),
            st.sampled_from(framings),
            st.sampled_from(("127.0.0.1",) * 50 + HOSTS),
            st.sampled_from(("1.1",) * 12 + ("1.0",)),
        )

    posts = [route for route in routes if route[0] == "POST"]
    return st.one_of(st.sampled_from(routes), st.sampled_from(posts)).flatmap(to)
