"""A Hub on this machine, for what can't be reached from a test: it serves folders as model repositories
in the Hub's HTTP API, as far as huggingface_hub (2.4) asks for it, and can be told to fail in the ways the
real one does. The client in front of it is the real huggingface_hub.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "c0ffee" + "0" * 34
LARGE = 1_000
"""Bytes from which a file is served as the Hub serves large ones: with its SHA-256 as ETag."""
CHUNK = 16_384


@dataclass
class Repository:
    """One model. accepted: tokens whose account accepted its licence; None: not gated. commit: its newest,
    and the only one there is."""

    folder: Path
    accepted: frozenset[str] | None = None
    commit: str = COMMIT


@dataclass
class FakeHub:
    """What the server serves, how it fails, and what it was asked.

    tokens: those that exist. refuse: answers every request with this status. cut: closes a file's connection
    after so many bytes, every time. short: leaves out the last bytes of files and says they are whole. flip:
    flips a bit of each weights file. slow: an event that holds the files whose path begins with `held` until
    it is set. portal: what answers every request instead of a Hub: status, content type, body. bare: leaves
    out the headers that only a Hub sends with a file. page: is sent for the content of each file, whatever
    was announced. asked: the path of every request.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: frozenset[str] = frozenset({"hf_good"})
    refuse: int | None = None
    cut: int | None = None
    short: bool = False
    flip: bool = False
    slow: threading.Event | None = None
    held: str = ""
    portal: tuple[int, str, bytes] | None = None
    bare: bool = False
    page: bytes | None = None
    url: str = ""
    files: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of every file that was fetched."""
    authorization: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serve_hub(**repositories: Repository) -> Iterator[FakeHub]:
    """A running Hub. Repositories are named later, in `hub.repositories`, where their ids have a slash."""
    hub = FakeHub(dict(repositories))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.slow is not None:
            hub.slow.set()
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, hub: FakeHub, cache_folder: Path, token: str | None) -> None:
    """Makes this process's huggingface_hub talk to `hub`, with an empty cache and this token."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"  # made from ENDPOINT when it is imported
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache_folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(cache_folder / "no token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.authorization.append(token)
        self.hub.asked.append(path)
        if self.hub.portal is not None:
            self._portal(*self.hub.portal)
        elif self.hub.refuse is not None:
            self._refuse(self.hub.refuse, "", "The server refuses.")
        elif token and token not in self.hub.tokens:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(found[1], found[2], found[3], token, body)
        else:
            self._refuse(404, "", "Not found")

    def _portal(self, status: int, kind: str, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _refuse(self, status: int, code: str, words: str) -> None:
        text = json.dumps({"error": words}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", words)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _json(self, value: object) -> None:
        text = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _repository(self, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:  # the Hub says so for private ones, too
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif revision not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository

    def _info(self, name: str, revision: str) -> None:
        if repository := self._repository(name, revision):
            gated = repository.accepted is not None and "auto"
            self._json({"id": name, "sha": repository.commit, "gated": gated})

    def _tree(self, name: str, revision: str) -> None:
        if repository := self._repository(name, revision):
            found = [path for path in sorted(repository.folder.rglob("*")) if path.is_file()]
            self._json([self._entry(repository, path) for path in found])

    def _entry(self, repository: Repository, path: Path) -> dict[str, object]:
        size = path.stat().st_size
        entry: dict[str, object] = {
            "type": "file",
            "path": path.relative_to(repository.folder).as_posix(),
            "size": size,
            "oid": _sha256(path)[:40],
        }
        if size >= LARGE:
            entry["lfs"] = {"oid": _sha256(path), "size": size, "pointerSize": 130}
        return entry

    def _file(self, name: str, revision: str, file: str, token: str, body: bool) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            pass
        elif repository.accepted is not None and token not in repository.accepted:
            self._refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted.")
        elif not (repository.folder / file).is_file():
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._content(file, repository.folder / file, repository.commit, body)

    def _content(self, file: str, path: Path, commit: str, body: bool) -> None:
        """A file, from the byte that is asked for."""
        content = path.read_bytes()
        etag = _sha256(path) if len(content) >= LARGE else _sha256(path)[:40]
        if self.hub.flip and file.endswith(".safetensors"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        if self.hub.short and len(content) >= LARGE:
            content = content[:-10]
        if self.hub.page is not None and body:
            content = self.hub.page
        asked = self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        whole, content = len(content), content[begin:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content)))
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        if not self.hub.bare:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if body:
            self.hub.files.append((file, asked))
            self._send(file, content)

    def _send(self, file: str, content: bytes) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that has gone
            for begin in range(0, len(content), CHUNK):
                if self.hub.slow is not None and file.startswith(self.hub.held):
                    self.hub.slow.wait(300)
                if self.hub.cut is not None and begin >= self.hub.cut:
                    self.close_connection = True
                    return
                self.wfile.write(content[begin : begin + CHUNK])
