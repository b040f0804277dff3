"""Debian's nginx in front of servers, with the documentation's own blocks, in a folder and on ports of the
test's own. Whoever has no nginx skips those tests."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
needs_nginx = pytest.mark.skipif(PROGRAM is None, reason="there is no nginx (apt-get install nginx-light)")
_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
AT_ROOT, UNDER_A_PATH = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "proxy.md").read_text(), re.DOTALL)
"""The documentation's blocks. The second strips the path /sd."""
DEFAULTS = "server { listen 80; location / { proxy_pass http://127.0.0.1:7860; } }"
"""As many write it: nginx (before 1.29) then speaks HTTP/1.0 to the server, and holds back what doesn't fill
one of its buffers."""
HANDED_ON = UNDER_A_PATH.replace(":7860/;", ":7860;")
"""The second block without the slash, which hands the path on."""


@contextlib.contextmanager
def nginx(folder: Path, *blocks: tuple[str, str]) -> Iterator[Sequence[str]]:
    """Runs nginx as a process of the test: the addresses at which it listens, one for each block.

    Args:
        folder: an empty one.
        blocks: a block of the documentation's, and the address of the server behind it.
    """
    assert PROGRAM is not None
    ports = [free_port() for _ in blocks]
    servers = [
        block.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("http://127.0.0.1:7860", server)
        for (block, server), port in zip(blocks, ports, strict=True)
    ]
    # Buffers larger than nginx's own 4 KB: so that what it holds back doesn't come when enough is there.
    buffers = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
    places = "".join(f"{kind}_temp_path {folder / kind}; " for kind in _KINDS)
    configuration = folder / "nginx.conf"
    # One process: as root, nginx's workers would be another user, who may not look into this folder.
    configuration.write_text(
        f"daemon off; master_process off; pid {folder / 'pid'};\nevents {{}}\n"
        f"http {{ access_log off; {buffers} {places}\n{''.join(servers)}}}\n"
    )
    log = folder / "nginx.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [PROGRAM, "-e", "stderr", "-p", folder, "-c", configuration], stdout=output, stderr=output
        )
        try:
            for port in ports:
                _wait(port, process, log)
            yield [f"http://127.0.0.1:{port}" for port in ports]
        finally:
            process.terminate()
            process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert process.poll() is None, f"nginx ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"nginx doesn't listen:\n{log.read_text()}"
        time.sleep(0.05)
