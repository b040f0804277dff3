"""OpenAI's official npm client, unmodified, on Node 20: draws, streams previews, gets errors of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.api.conftest import KEYS, Keyed
from tests.support.services.node import Node
from tests.support.steps import JAVASCRIPT, Steps

DRAWS = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none" });
const say = (...values) => console.log(JSON.stringify(values));

const models = await client.models.list();
say("models", models.data.map((model) => model.id));
say("model", (await client.models.retrieve("sketch")).limits.steps);

const small = { prompt: "a red apple", size: "128x128", steps: 4, seed: 7 };
const answer = await client.images.generate(small);
say("drawn", answer.data[0].b64_json.slice(0, 8), answer.data[0].seed, answer.size);

hold(1);
const stream = await client.images.generate({ ...small, stream: true, partial_images: 2 });
for await (const event of stream) {
  say(event.type, event.b64_json.slice(0, 4), event.partial_image_index);
  goOn();
}

const refused = async (values) => {
  try {
    for await (const _ of await client.images.generate({ prompt: "a fox", ...values }, { maxRetries: 1 }));
  } catch (error) {
    const kinds = ["BadRequestError", "NotFoundError", "InternalServerError"];
    const kind = kinds.find((name) => error instanceof OpenAI[name]);
    say("refused", kind, error.status, error.param, error.code);
  }
};
await refused({ n: 9 });
await refused({ model: "my-gpt-image-1" });
await refused({ model: "sd3.5-large", stream: true });

const controller = new AbortController();
const long = { ...small, steps: 60, stream: true, partial_images: 3 };
hold(1);
let seen = 0;
for await (const _ of await client.images.generate(long, { signal: controller.signal })) {
  seen += 1;
  controller.abort();
}
say("left after", seen);
goOn();
say("drawn again", (await client.images.generate(small)).data.length);
"""

KEYLESS = """
import OpenAI from "openai";
for (const apiKey of [process.argv[3], "wrong"]) {
  const client = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey });
  try {
    console.log(JSON.stringify((await client.models.list()).data.length));
  } catch (error) {
    console.log(JSON.stringify([error instanceof OpenAI.AuthenticationError, error.code]));
  }
}
"""


def said(printed: str) -> list[Any]:
    return [json.loads(line) for line in printed.splitlines()]


def test_the_npm_client_draws_streams_leaves_and_gets_errors(
    server: str, node: Node, tmp_path: Path, steps: Steps
) -> None:
    lines = said(node.run(JAVASCRIPT + DRAWS, tmp_path, server, **steps.environment))
    models, model, drawn, *rest = lines
    assert models[1][0] == "sketch"
    assert model == ["model", [1, 60]]
    assert drawn == ["drawn", "iVBORw0K", 7, "128x128"]
    events = [line for line in rest if line[0].startswith("image_generation.")]
    *partials, completed = events
    assert 1 <= len(partials) <= 2
    for number, partial in enumerate(partials):
        assert partial == ["image_generation.partial_image", "/9j/", number]
    assert completed == ["image_generation.completed", "iVBO", None]
    assert [line for line in rest if line[0] == "refused"] == [
        ["refused", "BadRequestError", 400, "n", "invalid_request"],
        ["refused", "NotFoundError", 404, "model", "model_not_found"],
        ["refused", "InternalServerError", 503, "model", "model_unavailable"],
    ]
    assert rest[-2:] == [["left after", 1], ["drawn again", 1]]


def test_the_npm_client_with_a_wrong_key_gets_an_authentication_error(
    keyed: Keyed, node: Node, tmp_path: Path
) -> None:
    assert said(node.run(KEYLESS, tmp_path, keyed.url, KEYS[1])) == [1, [True, "invalid_api_key"]]
