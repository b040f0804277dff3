"""@gradio/client on Node 20 and in a browser: it streams previews, stops, lists the models, downloads the
finished PNG, and is refused in words."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from pipeline.recipe import read_recipe
from tests.support.browser import launch_chromium
from tests.support.rest import call
from tests.support.services.node import Node
from tests.support.steps import JAVASCRIPT, Steps
from tests.support.tiny import ROOT, SMALL

LONG = SMALL | {"steps": 60}
"""Held at its first step until the client has ended it."""
BEGIN = """
import { writeFileSync } from "node:fs";
import { Client } from "@gradio/client";
const values = JSON.parse(process.env.VALUES);
const client = await Client.connect(process.argv[2]);
const say = (value) => console.log(JSON.stringify(value));
"""


def said(
    node: Node, folder: Path, server: str, module: str, values: dict[str, Any], steps: Steps | None = None
) -> list[Any]:
    """What a module says, line by line. steps: those that it may hold."""
    environment = {"VALUES": json.dumps(values)} | (steps.environment if steps else {})
    printed = node.run(JAVASCRIPT + BEGIN + module, folder, server, **environment)
    return [json.loads(line) for line in printed.splitlines()]


STREAM = """
hold(1);
for await (const event of client.submit("/generate", values)) {
  const [pictures, info] = event.data;
  say([pictures, info]);
  if (pictures.length) hold(info.step + 4);
  if (info.phase === "finished") {
    const file = await fetch(pictures[0].image.url);
    writeFileSync("picture.png", new Uint8Array(await file.arrayBuffer()));
  }
}
"""


@pytest.mark.sketch
def test_submit_streams_previews_and_then_the_png_which_can_be_fetched(
    node: Node, tmp_path: Path, server: str, steps: Steps
) -> None:
    events = said(node, tmp_path, server, STREAM, SMALL | {"steps": 20}, steps)
    at = [info["step"] for _, info in events]
    assert at == sorted(at)
    previews = {pictures[0]["image"]["url"] for pictures, info in events if pictures and info["step"] < 20}
    assert len(previews) >= 3  # those it was held at; between them the newest wins
    assert all(url.endswith("/preview.jpg") for url in previews)
    png = (tmp_path / "picture.png").read_bytes()
    assert read_recipe(io.BytesIO(png)).seed == 7
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.size) == ("PNG", (128, 128))


PREDICT = """
const { data } = await client.predict("/generate", values);
say(data);
say((await client.predict("/models", {})).data[0]);
"""


def test_predict_gives_the_last_answer_and_models_lists_them(node: Node, tmp_path: Path, server: str) -> None:
    (pictures, info), models = said(node, tmp_path, server, PREDICT, SMALL)
    assert info["phase"] == "finished"
    assert pictures[0]["image"]["url"].endswith("/7.png")
    assert models == call(server, "models", {})[0]


STOP = """
let asked = false;
for await (const event of client.submit("/generate", values)) {
  const [pictures, info] = event.data;
  if (pictures.length && !asked) {
    asked = true;
    const other = await Client.connect(process.argv[2]);
    say((await other.predict("/stop", { job: values.job })).data);
  }
  say([pictures.length, info.phase]);
}
"""


def test_stop_ends_the_job_of_another_client_which_keeps_its_last_preview(
    node: Node, tmp_path: Path, server: str, steps: Steps
) -> None:
    job = str(uuid.uuid4())
    steps.hold(1)
    lines = said(node, tmp_path, server, STOP, LONG | {"job": job})
    (answer,) = [line[0] for line in lines if isinstance(line[0], dict)]
    assert (answer["job"], answer["phase"]) == (job, "stopped")
    assert answer["step"] < 60
    assert lines[-1] == [1, "stopped"]


CANCEL = """
const runs = async () => {
  const metrics = await (await fetch(`${process.argv[2]}/metrics`)).text();
  return /^stepwise_jobs_running{.*"sketch".*} [1-9]/m.test(metrics);
};
hold(1);
const drawing = client.submit("/generate", values);
let job;
for await (const event of drawing) {
  job = event.data[1].job;
  if (event.data[0].length) await drawing.cancel();
}
// Whoever follows it before it has ended would keep it.
while (await runs()) await new Promise((later) => setTimeout(later, 20));
goOn();
say((await client.predict("/job", { job })).data[1]);
"""


def test_cancel_ends_the_job_within_a_step(node: Node, tmp_path: Path, server: str, steps: Steps) -> None:
    (info,) = said(node, tmp_path, server, CANCEL, LONG, steps)
    assert info["phase"] == "stopped"
    assert 0 < info["step"] < 60


ERRORS = """
const joined = (entries) => entries.map((entry) => entry.message).filter(Boolean).join(" ");
const told = await Client.connect(process.argv[2], { events: ["data", "status"] });
for (const wrong of values) {
  const sent = { prompt: "a red apple", ...wrong };
  const refused = (error) => joined(JSON.parse(error.message));
  const thrown = await client.predict("/generate", sent).then(() => null, refused);
  for await (const event of told.submit("/generate", sent))
    if (event.stage === "error") say([thrown, joined(event.message)]);
}
"""
BAD = {
    "steps": ({"steps": 1000}, "steps must be from 1 to 60 for Sketch; got 1000."),
    "prompt": ({"prompt": ""}, "prompt is empty: write what to draw."),
    "model": ({"model": "dall-e"}, 'model "dall-e" is not known. Known models: sd3.5-large'),
    "seed": ({"seed": 1.5}, "seed must be a whole number; got 1.5."),
}


def test_bad_parameters_are_refused_in_words_by_predict_and_by_submit(
    node: Node, tmp_path: Path, server: str
) -> None:
    cases: Any = [values for values, _ in BAD.values()]
    answers = said(node, tmp_path, server, ERRORS, cases)
    for (name, (_, words)), (thrown, told) in zip(BAD.items(), answers, strict=True):
        assert thrown == told, name
        assert words in told


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    """Another site on this machine, with this folder's files."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()


@pytest.mark.browser
def test_the_page_of_the_documentation_draws_in_a_browser(node: Node, tmp_path: Path, server: str) -> None:
    text = (ROOT / "docs" / "javascript.md").read_text()
    (page,) = re.findall(r"```html\n(.*?)```", text, re.DOTALL)
    page = page.replace("http://127.0.0.1:7860", server)
    client = (node.modules / "@gradio" / "client" / "dist" / "index.min.js").read_bytes()

    (tmp_path / "index.html").write_text(page)

    with sync_playwright() as playwright, site(tmp_path) as address:
        browser = launch_chromium(playwright)
        tab = browser.new_page()
        # In place of what is elsewhere: the package as it was installed.
        tab.route(
            "https://cdn.jsdelivr.net/**",
            lambda route: route.fulfill(
                body=client, content_type="text/javascript", headers={"Access-Control-Allow-Origin": "*"}
            ),
        )
        tab.goto(address)
        expect(tab.locator("#line")).to_have_text("finished 28 of 28", timeout=60_000)
        expect(tab.locator("#picture")).to_have_js_property("naturalWidth", 256)
        browser.close()
