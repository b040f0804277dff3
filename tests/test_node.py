"""The JavaScript clients can be run at all: Node's version, and the packages that the lock names."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.services.node import PACKAGES, Node

IMPORTS = """
import OpenAI from "openai";
import { Client } from "@gradio/client";
console.log(JSON.stringify([process.versions.node, typeof OpenAI, typeof Client]));
"""


def test_node_20_runs_the_clients_that_the_lock_names(node: Node, tmp_path: Path) -> None:
    running, openai, gradio = json.loads(node.run(IMPORTS, tmp_path))
    assert running.startswith("20.")
    assert (openai, gradio) == ("function", "function")
    for name, version in json.loads((PACKAGES / "package.json").read_text())["dependencies"].items():
        assert json.loads((node.modules / name / "package.json").read_text())["version"] == version


def test_the_lock_holds_hashes_and_no_registrys_address() -> None:
    lock = (PACKAGES / "package-lock.json").read_text()
    assert '"integrity"' in lock
    assert not re.search(r"https?://", lock)
