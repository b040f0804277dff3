"""A stand-in for what isn't on this machine: Hugging Face's Hub, the router in front of the Inference
Providers, and the providers. It answers on a loopback port, as the proxy through which HTTPS leaves: the app
calls the real addresses, with TLS, and nothing in it knows of this.
"""

from __future__ import annotations

import datetime
import io
import json
import ssl
import struct
import threading
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image

from tests.support.tiny import LIMITS, Gate

SECRET = "hf_noRealToken0123456789"
"""What the app has as HF_TOKEN; may be seen in an Authorization header and nowhere else."""
HUB, ROUTER, STORE = "huggingface.co", "router.huggingface.co", "pictures.example"


@dataclass
class Asked:
    """One request for a picture, as it arrived."""

    host: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def parameters(self) -> dict[str, Any]:
        return self.body["parameters"]


@dataclass
class Answer:
    """What comes back. sent: only so many of the body's bytes, then the connection ends."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None


def picture(width: int = 64, height: int = 64, shade: int = 0, format: str = "PNG") -> bytes:
    """A picture of one colour, shade / 0 / 0."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade % 256, 0, 0)).save(buffer, format)
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it unpacks to this size."""
    png = bytearray(picture())
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)


def as_asked(asked: Asked) -> Answer:
    """A picture as the provider hf-inference gives it: of the size asked for, as red as its seed."""
    wanted = asked.parameters
    return Answer(picture(wanted["width"], wanted["height"], wanted["seed"]))


class Far(NamedTuple):
    """An app whose models a stand-in draws: its address, the stand-in, and the app's log."""

    url: str
    provider: FakeProvider
    log: Path


class FakeProvider:
    """A context manager. Tests set what comes back, and read `asked`.

    answer: the provider's, to each request; None: it never comes. serving: which providers the Hub says draw
    the model, best first. hub: the Hub's whole answer instead of that. files: pictures kept elsewhere, by
    path. environment: what the app runs with, to come here.
    """

    def __init__(self, folder: Path) -> None:
        self.answer: Callable[[Asked], Answer] | None = as_asked
        self.serving: list[str] = ["hf-inference"]
        self.hub: Callable[[], Answer] | None = None
        self.files: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.reached, self.gone = threading.Event(), threading.Event()
        self.model = f"someone/{uuid.uuid4().hex}"  # its own: huggingface_hub remembers who serves which
        certificate = _certificate(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.tls, self._server.fake = tls, self
        self.environment = {
            "HF_TOKEN": SECRET,
            "HF_HUB_OFFLINE": "0",
            "https_proxy": f"http://127.0.0.1:{self._server.server_port}",
            "no_proxy": "127.0.0.1,localhost",
            "SSL_CERT_FILE": str(certificate),
        }

    def __enter__(self) -> FakeProvider:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """As at the start, for the next test."""
        self.answer = as_asked
        self.asked.clear()
        self.reached.clear()
        self.gone.clear()

    def hold(self, call: int = 1) -> Gate:
        """Makes the `call`-th picture from now on wait for its gate."""
        gate = Gate()
        assert self.answer is not None
        self.answer = gate.around(self.answer, call)
        return gate

    def hang(self) -> None:
        """From now on no answer comes: `reached` is set once one is waited for, `gone` once nobody does."""
        self.answer = None

    def entry(self, model: str = "far", **changes: Any) -> dict[str, Any]:
        """An entry of models.yaml for what is drawn here; `changes` replace whole keys."""
        return {
            "id": model,
            "name": model.title(),
            "family": "sd3",
            "backend": "inference",
            "provider": "hf-inference",
            "source": self.model,
            "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
            "defaults": {"steps": 28, "guidance": 3.5, "width": 64, "height": 48},
            "limits": LIMITS,
        } | changes


def _certificate(folder: Path) -> Path:
    """A key and a certificate of its own for every host here, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test's stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = [x509.DNSName(host) for host in (HUB, ROUTER, STORE)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "stand-in.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


class _Server(ThreadingHTTPServer):
    tls: ssl.SSLContext
    fake: FakeProvider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that hang up are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    host = ""

    def log_message(self, *_: object) -> None: ...

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_CONNECT(self) -> None:
        self.host = self.path.split(":")[0]
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)  # type: ignore[assignment]
        self.close_connection = False

    def do_GET(self) -> None:
        fake, path = self.server.fake, self.path.split("?")[0]
        if self.host == STORE:
            return self._send(Answer(fake.files[path]))
        assert (self.host, path) == (HUB, f"/api/models/{fake.model}"), (self.host, self.path)
        mapping = {
            name: {"providerId": f"{name}/its-name", "status": "live", "task": "text-to-image"}
            for name in fake.serving
        }
        known = {"id": fake.model, "pipeline_tag": "text-to-image", "inferenceProviderMapping": mapping}
        return self._send(fake.hub() if fake.hub else Answer(json.dumps(known).encode()))

    def do_POST(self) -> None:
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.host, self.path, headers, body)
        fake.asked.append(asked)
        if fake.answer is not None:
            return self._send(fake.answer(asked))
        fake.reached.set()
        self.close_connection = True
        self.rfile.read(1)  # nothing more is sent: this ends when the caller hangs up
        return fake.gone.set()

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: answer.sent])
        if answer.sent is not None:
            self.close_connection = True
