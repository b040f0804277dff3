"""`make clients`: the documentation's examples with the newest clients that the registries have, as a table.

With --keep, what was installed becomes the newest release known, which the suite runs from then on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.clients import CLIENTS, LOCKED_JS, Client, make_python, modules_of, npm, python_of
from tests.docs.support.server import small_models, small_server
from tests.docs.support.snippets import Programs, run
from tests.support.services.node import PROGRAM


def install(client: Client, folder: Path) -> Programs:
    """The newest release that its registry has, and what its examples need besides, in this folder."""
    if client.language == "python":
        make_python(folder, client.name, *client.beside)
        return Programs(python_of(folder), modules_of(folder))
    folder.mkdir()
    shutil.copy(LOCKED_JS / ".npmrc", folder)
    npm(folder, "install", f"{client.name}@latest")
    return Programs(python_of(folder), modules_of(folder))


def installed(client: Client, folder: Path) -> str:
    """Its version there."""
    if client.language == "js":
        return json.loads((modules_of(folder) / client.name / "package.json").read_text())["version"]
    words = f"from importlib.metadata import version; print(version({client.name!r}))"
    return subprocess.check_output([python_of(folder), "-c", words], text=True).strip()


def keep(client: Client, folder: Path, version: str) -> None:
    """Makes what is in this folder the newest release known."""
    if client.language == "js":
        npm(LOCKED_JS, "install", "--package-lock-only", f"{client.name}@{version}")
    elif version == client.pinned():
        client.lock.unlink(missing_ok=True)
    else:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python_of(folder))]
        client.lock.write_text(subprocess.check_output([*pip, "freeze"], text=True), encoding="utf-8")


def main() -> int:
    """Prints the table as it comes; the exit code is 1 where an example fails."""
    failures = []
    with (
        tempfile.TemporaryDirectory() as temporary,
        small_server(Path(temporary), small_models(Path(temporary))) as server,
    ):
        print("| client | pinned | newest | examples passed |\n|---|---|---|---|", flush=True)
        for place, client in enumerate(CLIENTS):
            folder = Path(temporary) / f"client-{place}"
            programs = install(client, folder)
            version = installed(client, folder)
            passed = 0
            examples = list(client.examples())
            for number, example in enumerate(examples):
                room = Path(temporary) / f"room-{place}-{number}"
                room.mkdir()
                ended = run(example, server, room, programs)
                passed += ended.returncode == 0
                if ended.returncode != 0:
                    failures.append(f"{example.name} with {client.title} {version}:\n{ended.stderr[-4000:]}")
            print(
                f"| {client.title} | {client.pinned()} | {version} | {passed} of {len(examples)} |",
                flush=True,
            )
            if "--keep" in sys.argv[1:] and passed == len(examples):
                keep(client, folder, version)
    node = subprocess.check_output([PROGRAM, "--version"], text=True).strip()
    print(f"\nPython {sys.version.split()[0]}, Node {node}.")
    print("\n\n".join(["", *failures]) if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
