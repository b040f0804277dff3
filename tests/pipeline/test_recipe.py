"""What other tools read in a finished PNG: its text in the layout of AUTOMATIC1111's web UI, whatever the
prompt holds. That the recipe draws the picture again stands in test_same_pixels.py."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image
from sd_parsers import ParserManager

from pipeline.errors import InvalidRequest
from pipeline.recipe import read_recipe, to_png
from pipeline.request import GenerationRequest, Job
from tests.support.services.node import Node

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"
INFOTEXT = f"a girl, (red:1.3)\nNegative prompt: ugly, fat\n{SETTINGS}"
PIECES = st.sampled_from(
    ["Negative prompt:", "Negative prompt: ", "negative prompt:", "NEGATIVE  PROMPT:", "Steps: ",
     "steps:", "Steps: 20", SETTINGS, INFOTEXT, "Sampler:", "Model: x", "Hashes: {", "}", "\n", "\n\n",
     "\r\n", " ", "\t", ",", ":", '"', "\\", "\u2028", "\x85", "a red apple", "grün", "“红”"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=8).map("".join)


def drawn(prompt: str, negative: str = "", **changes: Any) -> bytes:
    """A finished PNG of a job with these texts, its pixels left out."""
    values: dict[str, Any] = {"model": "sketch", "width": 144, "height": 128, "steps": 4, "guidance": 2.5}
    job = Job(id="", prompt=prompt, negative_prompt=negative, seed=7, images=1, **values | changes)
    return to_png(Image.new("RGB", (8, 8)), job, 0, {"source": "sketch"})


def parameters(png: bytes) -> str:
    with Image.open(io.BytesIO(png)) as image:
        return image.info["parameters"]


def letters(text: str) -> str:
    """The text without its white space: readers strip lines, and the mark that keeps a text from being taken
    for the layout's own is a space."""
    return "".join(text.split())


def as_the_web_ui_reads(text: str) -> tuple[str, str, dict[str, str]]:
    """AUTOMATIC1111's rule: the last line has the settings if it has three or more; of the lines before, the
    first that begins with "Negative prompt:" begins the negative prompt, and each loses those words."""
    *lines, last = text.strip().split("\n")
    settings = dict(part.strip().split(": ", 1) for part in last.split(",") if ": " in part)
    if len(settings) < 3:
        lines, settings = [*lines, last], {}
    texts, negative = ([], []), 0  # type: tuple[list[str], list[str]], int
    for line in (line.strip() for line in lines):
        if line.startswith("Negative prompt:"):
            negative, line = 1, line[len("Negative prompt:") :].strip()
        texts[negative].append(line)
    return "\n".join(texts[0]), "\n".join(texts[1]), settings


def sent(prompt: str, negative: str) -> tuple[str, str]:
    """Both as a request has them, where they may be sent at all."""
    try:
        request = GenerationRequest.parse({"prompt": prompt, "negative_prompt": negative})
    except InvalidRequest:
        assume(False)
    return request.prompt, request.negative_prompt or ""


@given(TEXTS, TEXTS)
@example(INFOTEXT, "")
@example(INFOTEXT, INFOTEXT)
@example("a sign that says Negative prompt: none", "blue")
@example("a fox\nNegative prompt: a hound\nNegative prompt: a hen", "")
@example("a fox", "blue\nNegative prompt: green")
@example(SETTINGS, SETTINGS)
def test_other_tools_read_the_very_prompts_and_settings_whatever_the_prompts_hold(
    prompt: str, negative: str
) -> None:
    prompt, negative = sent(prompt, negative)
    png = drawn(prompt, negative)

    text = parameters(png)
    read, read_negative, settings = as_the_web_ui_reads(text)
    assert (letters(read), letters(read_negative)) == (letters(prompt), letters(negative))
    assert (settings["Steps"], settings["Seed"], settings["Size"]) == ("4", "7", "144x128")

    found = ParserManager().parse(io.BytesIO(png))
    assert found is not None
    assert [letters(one.value) for one in found.prompts] == [letters(prompt)]
    assert "".join(letters(one.value) for one in found.negative_prompts) == letters(negative)
    (sampler,) = found.samplers
    assert (sampler.parameters["steps"], sampler.parameters["seed"]) == ("4", "7")

    # Civitai takes the first line that begins so for the settings.
    assert [line for line in text.split("\n") if line.lstrip().startswith("Steps:")] == [text.split("\n")[-1]]

    assert read_recipe(io.BytesIO(png)).prompt == prompt


@pytest.mark.parametrize(
    "prompt",
    ["a red apple", "(red:1.3), Steps to a door: two", "a sign: “prompt: negative”", "how many steps?"],
)
def test_a_prompt_that_cant_be_mistaken_is_written_as_it_is(prompt: str) -> None:
    assert parameters(drawn(prompt)).split("\n")[0] == prompt


def chunks(png: bytes) -> dict[str, str]:
    """The kind of chunk that each text is in, by its keyword."""
    found, place = {}, 8
    while place < len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            found[png[place + 8 : place + 8 + length].partition(b"\0")[0].decode()] = kind.decode()
        place += 12 + length
    return found


@pytest.mark.parametrize("prompt, kind", [("a red apple, “grün”", "iTXt"), ("grün, ½ of it", "tEXt")])
def test_the_text_is_latin_1_where_that_can_hold_it(prompt: str, kind: str) -> None:
    png = drawn(prompt)
    assert chunks(png) == {"parameters": kind, "stepwise": "iTXt"}
    assert parameters(png).split("\n")[0] == prompt


READ = """
import { readFileSync } from "node:fs";
import exifr from "exifr";
import extract from "png-chunks-extract";
import { decode } from "png-chunk-text";

const file = readFileSync("fox.png");
const texts = extract(file).filter((chunk) => chunk.name === "tEXt").map((chunk) => decode(chunk.data));
console.log(JSON.stringify([(await exifr.parse(file)).parameters, texts]));
"""


def test_tools_that_read_text_chunks_alone_find_it(node: Node, tmp_path: Path) -> None:
    """exifr is Civitai's; neither reads iTXt. Of tEXt exifr (7.1) reads ASCII alone as it should: it takes
    Latin-1 for UTF-8."""
    png = drawn("a red apple", "blue sky")
    (tmp_path / "fox.png").write_bytes(png)
    by_exifr, by_chunks = json.loads(node.run(READ, tmp_path))
    assert by_exifr == parameters(png)
    assert by_chunks == [{"keyword": "parameters", "text": parameters(png)}]
