"""A parameter is declared once. Here one more is, `sharpness`, which nothing draws with, in a server and in
other processes of its own; and it is found wherever a parameter has to be, with its bounds, its default and
its words."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import ValidationError
from PIL import Image

from pipeline.engine import Engine
from pipeline.errors import InvalidRequest
from pipeline.parameters import PARAMETERS
from tests.api.conftest import SHORT
from tests.conftest import serve
from tests.inside.sitecustomize import DECLARED
from tests.support.mcp import connected, words
from tests.support.rest import TIMEOUT
from tests.support.tiny import ROOT, SMALL, entry, models_yaml

SHARPNESS: dict[str, Any] = {
    "name": "sharpness",
    "kind": "number",
    "about": "How sharp the edges are.",
    "label": "Sharpness",
    "bounds": [0, 2],
    "default": 1.0,
    "increment": 0.25,
    "infotext": [60, "Sharpness"],
    "flag": "--sharpness",
    "metavar": "HOW",
    "elsewhere": "crispness",
}
ENVIRONMENT = {DECLARED: json.dumps(SHARPNESS)}
ASKED = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2, "seed": 7}
MOST_FILES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharp")


@pytest.fixture(scope="module")
def sharp(folder: Path, tiny_folder: Path) -> Iterator[str]:
    """The address of a server that has the parameter."""
    models = models_yaml(folder, entry(tiny_folder, limits=SHORT))
    with serve(folder, STEPWISE_MODELS=str(models), **ENVIRONMENT) as url:
        yield url


def ran(*command: str) -> str:
    """What a command that has the parameter writes."""
    environment = {**os.environ, **ENVIRONMENT}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_it_is_the_last_parameter_of_generate_and_the_api_page_has_its_words(sharp: str) -> None:
    info = httpx.get(f"{sharp}/gradio_api/info", timeout=TIMEOUT).json()
    *others, parameter = info["named_endpoints"]["/generate"]["parameters"]
    assert [one["parameter_name"] for one in others] == [
        "prompt", "model", "negative_prompt", "width", "height", "steps", "guidance", "seed", "images", "job",
    ]  # fmt: skip
    assert (parameter["parameter_name"], parameter["label"]) == ("sharpness", "sharpness")
    assert (parameter["parameter_has_default"], parameter["parameter_default"]) == (True, None)
    assert parameter["type"]["additional_description"] == "How sharp the edges are. Null: 1."


def test_the_openapi_document_has_it_with_its_bounds(sharp: str) -> None:
    schemas = httpx.get(f"{sharp}/v1/openapi.json", timeout=TIMEOUT).json()["components"]["schemas"]
    asked = schemas["ImageRequest"]["properties"]["sharpness"]
    assert (asked["minimum"], asked["maximum"]) == (0, 2)
    assert asked["description"] == "How sharp the edges are. Null: 1. Not an OpenAI parameter."
    for answered in ("ImagesAnswer", "CompletedImage"):
        assert schemas[answered]["properties"]["sharpness"]["type"] == "number"


def test_the_mcp_tool_has_it_with_its_bounds(sharp: str) -> None:
    async def listed() -> Any:
        async with connected(sharp) as session:
            return await session.list_tools()

    draw, _ = asyncio.run(listed()).tools
    described = {"type": "number", "description": "How sharp the edges are. Left out: 1."}
    assert draw.inputSchema["properties"]["sharpness"] == described | {"minimum": 0, "maximum": 2}
    assert "sharpness 0 to 2, default 1." in draw.inputSchema["properties"]["model"]["description"]


def test_the_command_line_has_an_option_for_it(sharp: str, tmp_path: Path) -> None:
    help_ = " ".join(ran(str(ROOT / "stepwise"), "draw", "--help").split())
    assert "--sharpness HOW how sharp the edges are (if not given: 1)" in help_
    draw = ("draw", "a fox", "--size", "64x64", "--steps", "2", "--sharpness", "0.5")
    ran(sys.executable, "-m", "cli", *draw, "--server", sharp, "--output", str(tmp_path / "fox.png"))
    assert recipe(tmp_path / "fox.png")["sharpness"] == 0.5


def test_the_docs_tables_have_it() -> None:
    script = """
from pipeline.catalog.catalogue import read_catalogue
from tests.docs.support.bounds import bounds_table, drawn_row, meanings_table, names_table
from tests.support.tiny import ROOT
tables = meanings_table(), bounds_table(read_catalogue(ROOT / "models.yaml")), names_table(), drawn_row()
print(*tables, sep="\\n")
"""
    tables = ran(sys.executable, "-c", script)
    assert "| `sharpness` | how sharp the edges are | 1 |" in tables
    assert "| `sharpness` (default) | 0 to 2 (1) | 0 to 2 (1) |" in tables
    assert "| `sharpness` | `sharpness` (ours) | `sharpness` | `--sharpness` |" in tables
    assert "`seed`, `sharpness` | as it is drawn |" in tables


def test_the_page_has_a_slider_for_it_that_is_sent_with_the_others(sharp: str) -> None:
    config = httpx.get(f"{sharp}/config", timeout=TIMEOUT).json()
    (slider,) = (one for one in config["components"] if one["props"].get("elem_id") == "sharpness")
    shown = {name: slider["props"][name] for name in ("label", "minimum", "maximum", "step", "value")}
    assert shown == {"label": "Sharpness", "minimum": 0, "maximum": 2, "step": 0.25, "value": 1.0}
    steps = next(one["id"] for one in config["components"] if one["props"].get("elem_id") == "steps")
    sent = [one["inputs"] for one in config["dependencies"] if steps in one["inputs"]]
    assert sent
    assert all(slider["id"] in inputs for inputs in sent)
    scripts = "".join(one["js"] for one in config["dependencies"] if isinstance(one["js"], str))
    assert '"sharpness": {"value": 1.0, "minimum": 0, "maximum": 2, "step": 0.25}' in scripts


def recipe(path: str | Path) -> dict[str, Any]:
    """The request in a picture's own recipe."""
    with Image.open(path) as image:
        return json.loads(image.info["stepwise"])["request"]


def test_a_value_is_in_info_in_the_job_and_in_both_forms_of_the_recipe(sharp: str, folder: Path) -> None:
    images, info = Client(sharp, verbose=False).predict(**ASKED, sharpness=1.5, api_name="/generate")
    assert (info["phase"], info["sharpness"]) == ("finished", 1.5)
    path = images[0]["image"]
    assert recipe(path)["sharpness"] == 1.5
    with Image.open(path) as image:
        settings = image.info["parameters"].split("\n")[-1]
    assert "Size: 64x64, Sharpness: 1.5, Model:" in settings
    with sqlite3.connect(folder / "data" / "jobs.sqlite") as connection:
        ((job,),) = connection.execute("SELECT job FROM jobs WHERE id = ?", (info["job"],)).fetchall()
    connection.close()
    assert json.loads(job)["sharpness"] == 1.5


def test_it_has_its_default_where_nothing_is_said(sharp: str) -> None:
    _, info = Client(sharp, verbose=False).predict(**ASKED, api_name="/generate")
    assert info["sharpness"] == 1.0


def test_openais_clients_and_mcps_draw_with_it(sharp: str) -> None:
    body = {"prompt": "a red apple", "size": "64x64", "steps": 2, "sharpness": 0.25}
    answer = httpx.post(f"{sharp}/v1/images/generations", json=body, timeout=TIMEOUT).json()
    assert answer["sharpness"] == 0.25

    async def drawn() -> Any:
        async with connected(sharp) as session:
            return await session.call_tool("draw", ASKED | {"sharpness": 1.75})

    _, text = asyncio.run(drawn()).content
    assert json.loads(text.text)["sharpness"] == 1.75


def test_it_is_refused_in_words_by_its_bounds_and_by_another_programs_name(sharp: str) -> None:
    client = Client(sharp, verbose=False)
    with pytest.raises(ValidationError, match=r"sharpness must be from 0 to 2 for .*; got 3\."):
        client.predict(**ASKED, sharpness=3, api_name="/generate")
    body = {"prompt": "a red apple", "crispness": 1}
    answer = httpx.post(f"{sharp}/v1/images/generations", json=body, timeout=TIMEOUT)
    assert answer.status_code == 400
    assert "Use sharpness instead of crispness." in answer.json()["error"]["message"]

    async def refused() -> Any:
        async with connected(sharp) as session:
            return await session.call_tool("draw", ASKED | {"sharpness": "very"})

    assert words(asyncio.run(refused())) == 'sharpness must be a number; got "very".'


def test_a_parameter_of_another_task_is_refused_in_words(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARAMETERS, "seed", replace(PARAMETERS["seed"], tasks=()))
    with pytest.raises(InvalidRequest, match="seed means nothing in text-to-image: leave it out"):
        engine.check(SMALL | {"seed": 1})
    assert engine.check(SMALL | {"seed": None}).seed >= 0


def test_few_files_name_a_parameter() -> None:
    """Where guidance is declared, where it is drawn with, and where its scale has a meaning of its own."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    own = [f":!{room}" for room in ("pipeline/families", "pipeline/sampling", "training", "tests", "bench")]
    found = subprocess.run(
        ["git", "grep", "--untracked", "-l", "guidance", "--", "*.py", *own],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert len(found) <= MOST_FILES, found
