"""Trains the embedded model from nothing and saves it: `python -m training --out DIR`.

In order: draw pictures, train the VAE, train tokenizers, teach T5 to spell, turn pictures into
latents, train the CLIPs and MMDiT together, save. `--smoke` does all of it with next to no data, to
test the code; `--resume` goes on from the last checkpoint of a run that was cut short; `--vae` takes
the VAE from a folder instead of training it.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel

from training import flow, publish, spelling, sprites
from training.captions import sample_scene
from training.recipe import FULL, RESUMED, SMOKE, Recipe
from training.render import render
from training.text import TextStack
from training.vae import train_vae


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)


def new_text_stack(recipe: Recipe, data: sprites.Sprites) -> TextStack:
    rng = random.Random(recipe.seed + 1)
    words = sprites.read_words()
    count = recipe.captions_for_vocabulary
    captions = [sample_scene(data.names, words, rng)[1] for _ in range(count)]
    text = TextStack.new(captions, recipe.clip_vocabulary, recipe.text_length)
    print(f"text: {len(text.clip_tokenizer)} CLIP and {len(text.t5_tokenizer)} T5 tokens", flush=True)
    return text


@torch.no_grad()
def preview_factors(recipe: Recipe, data: sprites.Sprites, vae: AutoencoderKL) -> dict[str, list]:
    rng = random.Random(recipe.seed + 2)
    noise = torch.Generator(data.objects.device).manual_seed(recipe.seed + 2)
    words = sprites.read_words()
    count = min(512, recipe.flow_pictures)
    scenes = [sample_scene(data.names, words, rng)[0] for _ in range(count)]
    pictures = render(scenes, data, 256, 256, noise)
    means = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(32)])
    latents = (means - vae.config.shift_factor) * vae.config.scaling_factor
    return publish.fit_preview(latents, pictures)


def train(
    recipe: Recipe,
    out: Path,
    device: torch.device,
    resume: Path | None = None,
    vae_folder: Path | None = None,
) -> None:
    """The whole run. The pipeline is in `out` at every checkpoint, and at the end.

    With `resume`, a folder that an earlier run saved, only its MMDiT and CLIPs train on. With
    `vae_folder` the VAE comes from there and everything else is trained from nothing.
    """
    began = time.monotonic()

    def note(what: str) -> None:
        print(f"[{time.monotonic() - began:.0f}s] {what}", flush=True)

    seed_everything(recipe.seed)
    data = sprites.load().first(recipe.objects).to(device)
    note(f"{len(data.names)} objects, {len(sprites.read_words())} words, on {device}")
    if resume:
        vae = AutoencoderKL.from_pretrained(resume / "vae", dtype=torch.float32).to(device)
        text = TextStack.load(resume).to(device)
        transformer = SD3Transformer2DModel.from_pretrained(
            resume / "transformer", dtype=torch.float32
        ).to(device).train()  # fmt: skip
    else:
        if vae_folder:
            vae = AutoencoderKL.from_pretrained(vae_folder, dtype=torch.float32).to(device)
        else:
            vae = train_vae(recipe, data)
        note("VAE ready")
        text = new_text_stack(recipe, data).to(device)
        spelling.teach(recipe, data, text)
        note("T5 spells")
        transformer = flow.new_transformer().to(device)
    preview = preview_factors(recipe, data, vae)
    rng = random.Random(recipe.seed + 3)
    noise = torch.Generator(device).manual_seed(recipe.seed + 3)
    pools = [flow.draw_pool(bucket, recipe, data, vae, text, rng, noise) for bucket in recipe.buckets]
    note(f"{sum(len(pool.latents) for pool in pools)} pictures as latents")

    def save(step: int) -> None:
        publish.save_pipeline(out, transformer, vae, text)
        publish.save_preview(out, preview)
        note(f"saved after {step} steps")

    flow.train_flow(recipe, pools, transformer, text, save)
    save(recipe.flow_steps)
    sizes = publish.megabytes(out)
    parts = ", ".join(f"{part} {size:.2f}" for part, size in sizes.items())
    note(f"{parts}; together {sum(sizes.values()):.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--smoke", action="store_true", help="all the code, next to no training")
    parser.add_argument("--resume", type=Path, help="folder that a run cut short has saved")
    parser.add_argument("--vae", type=Path, help="folder of a VAE to take instead of training one")
    options = parser.parse_args()
    recipe = SMOKE if options.smoke else RESUMED if options.resume else FULL
    device = torch.device("cuda" if torch.cuda.is_available() and not options.smoke else "cpu")
    train(recipe, options.out, device, options.resume, options.vae)


if __name__ == "__main__":
    main()
