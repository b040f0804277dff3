"""What Stepwise is compared with: a plain Gradio function around the plain diffusers pipeline, no previews.

    python -m bench.support.plain_app

As short as an app that draws can be; `bench.overhead` runs it as a server of its own.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from bench.support.table import ROOT

SKETCH = ROOT / "weights" / "sketch"
TOKENS = 32
"""The most that sketch's T5 reads (models.yaml); Stepwise passes it too, so both encode the same."""


def load() -> StableDiffusion3Pipeline:
    """Sketch, as the diffusers manual loads a pipeline; its progress bar is off."""
    pipe = StableDiffusion3Pipeline.from_pretrained(SKETCH, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, prompt: str, seed: int, steps: int, size: int) -> Image.Image:
    """One picture, as the diffusers manual draws it."""
    return pipe(
        prompt,
        width=size,
        height=size,
        num_inference_steps=steps,
        guidance_scale=3.5,
        max_sequence_length=TOKENS,
        generator=torch.Generator("cpu").manual_seed(int(seed)),
    ).images[0]


def main() -> None:
    pipe = load()

    def generate(prompt: str, seed: float, steps: float, size: float) -> Image.Image:
        return draw(pipe, prompt, int(seed), int(steps), int(size))

    inputs = [gr.Textbox(), gr.Number(), gr.Number(), gr.Number()]
    gr.Interface(generate, inputs, gr.Image(format="png"), api_name="generate").launch(ssr_mode=False)


if __name__ == "__main__":
    main()
