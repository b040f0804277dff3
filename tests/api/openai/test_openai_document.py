"""The OpenAPI document of /v1 is true: schemathesis asks what it allows and what it forbids, and compares
each answer with it. Some hundred cases here, of one model that draws in milliseconds; more of them, and all
of schemathesis' phases, by

    STEPWISE_CASES=1000 python -m pytest tests/api/openai/test_openai_document.py -s
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.conftest import KEYS, Keyed
from tests.support.rest import TIMEOUT

CASES = int(os.environ.get("STEPWISE_CASES", "0"))


@pytest.mark.timeout(3600 if CASES else 900)
def test_answers_are_what_the_document_says(keyed: Keyed, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{keyed.url}/v1/openapi.json"),
        *("--header", f"Authorization: Bearer {KEYS[0]}", "--max-examples", f"{CASES or 60}"),
        *("--phases", "examples,coverage,fuzzing,stateful" if CASES else "examples,fuzzing"),
        # What a schema can't say is refused: width × height × n, characters that are no text.
        *("--exclude-checks", "positive_data_acceptance", "--continue-on-failure"),
        *("--generation-deterministic", "--no-color"),
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    counted = re.search(r"(\d+) generated, \1 passed", run.stdout)
    assert counted is not None, run.stdout
    assert int(counted[1]) >= max(100, CASES)


def document(server: str, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.get(f"{server}/v1/openapi.json", headers=named, timeout=TIMEOUT).json()


def test_the_document_has_this_servers_bounds_its_address_and_no_security_it_hasnt(server: str) -> None:
    described = document(server)
    assert described["servers"] == [{"url": f"{server}/v1"}]
    assert "security" not in described
    asked = described["components"]["schemas"]["ImageRequest"]
    assert asked["required"] == ["prompt"]
    assert asked["additionalProperties"] is False
    assert (asked["properties"]["steps"]["minimum"], asked["properties"]["steps"]["maximum"]) == (1, 100)
    assert "sketch" in asked["properties"]["model"]["anyOf"][0]["enum"]
    assert set(described["paths"]) == {"/images/generations", "/models", "/models/{model}"}
    responses = described["paths"]["/images/generations"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "404", "409", "413", "415", "429", "500", "503"}
    for status in set(responses) - {"200"}:
        assert responses[status]["content"]["application/json"]["example"]["error"]["message"]


def test_the_document_of_a_server_with_keys_behind_a_proxy_says_both(keyed: Keyed) -> None:
    described = document(
        keyed.url,
        authorization=f"Bearer {KEYS[0]}",
        x_forwarded_host="example.org",
        x_forwarded_proto="https",
    )
    assert described["servers"] == [{"url": "https://example.org/v1"}]
    assert described["security"] == [{"key": []}]
    assert described["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
