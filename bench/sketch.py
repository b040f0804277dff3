"""Scores the embedded model: does the picture show what the prompt says?

`python -m bench.sketch run weights/sketch [OTHER]` draws 304 prompts with fixed seeds at 8 and 28
steps, scores them beside the renderer's own pictures and the VAE's reconstructions of those (the
ceilings), times both models, and prints one table. `draw`, `score` and `time` do its parts, so that
the drawing can be done elsewhere; `sheet` shows 64 drawings. No prompt was chosen by how it comes out.
"""

from __future__ import annotations

import argparse
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline
from PIL import Image, ImageDraw

from bench.support import sketch_scores as scores
from training import sprites
from training.captions import COLOUR_NAMES, UNNAMED, Scene
from training.render import render

SIDE = 256
STEPS = (8, 28)
GUIDANCE = 3.5
# Nouns that name the same emoji in Unicode's own list, so that other models can be compared.
NOUNS = """fox bear panda koala lion unicorn raccoon elephant giraffe zebra camel hedgehog penguin owl
duck chicken eagle parrot flamingo fish shark octopus crab turtle snake lizard crocodile snail butterfly
spider cactus sunflower rose tulip mushroom banana lemon pear peach strawberry watermelon pineapple avocado
tomato carrot broccoli pizza hamburger taco cookie cupcake lollipop taxi tractor airplane helicopter rocket
sailboat rainbow snowman""".split()  # noqa: SIM905 (quotes around each would read worse)
KNOWN = """BEACH BEAR BEST BIRD BLUE BOOK BREAD CAKE CITY CODE COLD COOL DOOR DREAM DUCK EARTH EASY EXIT FAST
FIRE FISH FOOD FROG FUN GAME GOLD GREEN HAPPY HEART HELP HOME HOPE HOT HOUSE ICE JAZZ JOY KING LAKE LIGHT
LOVE MAP MOON MUSIC NICE NIGHT OPEN PARTY PEACE SMILE""".split()  # noqa: SIM905 (quotes around each would read worse)
UNSEEN = """APRIL BARK BEAN BLUSH BRAVE BRUSH CANDY CHALK CLOUD CROWN DAISY ELBOW FLUTE FROST GHOST GIANT
GRAPE HONEY IVORY JELLY MANGO MAPLE PANDA PEPPER SCARF SPARK VIVID YACHT VELVET GLOVE""".split()  # noqa: SIM905 (quotes around each would read worse)


@dataclass(frozen=True)
class Case:
    group: str
    prompt: str
    scene: Scene


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def cases(names: list[list[str]]) -> list[Case]:
    """The prompts, always the same; a case's place in the list is its seed.

    Nouns and colours come round again after 60: a fifth of those prompts is drawn with two seeds.
    """
    index = {name: i for i, row in enumerate(names) for name in row}
    found = []
    for i in range(72):
        noun, colour = NOUNS[i % len(NOUNS)], i % len(COLOUR_NAMES)
        scene = Scene("one", first=index[noun], background=colour)
        found.append(Case("coloured", f"{article(noun)} on a {COLOUR_NAMES[colour]} background", scene))
    for noun in NOUNS[1::2]:
        found.append(Case("plain", article(noun), Scene("one", first=index[noun])))
    for i in range(72):
        first, second = NOUNS[(7 * i) % 60], NOUNS[(11 * i + 5) % 60]
        second = second if second != first else NOUNS[(11 * i + 6) % 60]
        scene = Scene("pair", first=index[first], second=index[second], vertical=i % 2 == 1)
        forward, backward = ("above", "below") if scene.vertical else ("to the left of", "to the right of")
        prompt = f"{article(first)} {forward} {article(second)}"
        if i % 4 >= 2:
            prompt = f"{article(second)} {backward} {article(first)}"
        found.append(Case("vertical" if scene.vertical else "horizontal", prompt, scene))
    forms = ['a sign that says "{}"', 'the word "{}"']
    for group, words in (("known", KNOWN), ("unseen", UNSEEN), ("without T5", KNOWN[:26])):
        for i, word in enumerate(words):
            found.append(Case(group, forms[i % 2].format(word), Scene("sign", word=word)))
    for i in range(24):
        noun, word = NOUNS[(5 * i + 2) % 60], KNOWN[2 * i]
        scene = Scene("label", first=index[noun], word=word)
        found.append(Case("labelled", f'{article(noun)} with the word "{word}"', scene))
    return found


def load(folder: Path, device: str) -> StableDiffusion3Pipeline:
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw_batch(pipe: StableDiffusion3Pipeline, prompts: list[str], seeds: list[int], steps: int) -> list:
    return pipe(
        prompts, num_inference_steps=steps, guidance_scale=GUIDANCE, height=SIDE, width=SIDE,
        max_sequence_length=pipe.tokenizer_max_length if pipe.tokenizer_3 is None
        else pipe.tokenizer_3.model_max_length,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    ).images  # fmt: skip


def draw(pipeline: Path, out: Path, device: str, batch: int = 8) -> None:
    """Draws every case at 8 and at 28 steps into `out/STEPS/INDEX.png`."""
    pipe = load(pipeline, device)
    without = StableDiffusion3Pipeline(**{**pipe.components, "text_encoder_3": None, "tokenizer_3": None})
    without.set_progress_bar_config(disable=True)
    everything = list(enumerate(cases(sprites.load().names)))
    halves = [
        (pipe, [e for e in everything if e[1].group != "without T5"]),
        (without, [e for e in everything if e[1].group == "without T5"]),
    ]
    for steps in STEPS:
        (out / str(steps)).mkdir(parents=True, exist_ok=True)
        for drawer, chosen in halves:
            for start in range(0, len(chosen), batch):
                part = chosen[start : start + batch]
                seeds = [seed for seed, _ in part]
                images = draw_batch(drawer, [case.prompt for _, case in part], seeds, steps)
                for seed, image in zip(seeds, images, strict=True):
                    image.save(out / str(steps) / f"{seed:03}.png")


def to_images(pictures: torch.Tensor) -> list[Image.Image]:
    bytes_ = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in bytes_]


@torch.no_grad()
def ceilings(pipeline: Path, found: list[Case]) -> dict[str, list[Image.Image]]:
    """The renderer's pictures of every case, and the same through this pipeline's VAE."""
    vae = AutoencoderKL.from_pretrained(pipeline / "vae", dtype=torch.float32)
    noise = torch.Generator().manual_seed(0)
    drawn = torch.cat([render([case.scene], sprites.load(), SIDE, SIDE, noise) for case in found])
    passed = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in drawn.split(8)])
    return {"renderer": to_images(drawn), "its VAE": to_images(passed)}


def score(
    found: list[Case], images: list[Image.Image], judge: scores.Classifier
) -> dict[str, tuple[int, int]]:
    """How many of how many are right, by row of the table."""
    rows: dict[str, list[bool]] = {}

    def mark(row: str, right: bool) -> None:
        rows.setdefault(row, []).append(right)

    shown = [(case, image) for case, image in zip(found, images, strict=True) if case.scene.shows_object]
    for case, image in shown:
        scene = case.scene
        seen = judge.name(scores.crop_objects(image, scene))
        if scene.kind == "pair":
            across = "above/below" if scene.vertical else "left/right"
            mark(f"both objects, each in its place: {across}", seen == [scene.first, scene.second])
        else:
            mark("object" if scene.kind == "one" else "object with a word", seen == [scene.first])
        if scene.background != UNNAMED:
            mark(
                "background colour",
                scores.background_colour(image) == COLOUR_NAMES[scene.background],
            )
    written = [(case, image) for case, image in zip(found, images, strict=True) if case.scene.shows_word]
    read = scores.read_all([scores.crop_word(image, case.scene) for case, image in written])
    titles = {
        "known": "known word, exact",
        "unseen": "unseen word, exact",
        "labelled": "known word below an object, exact",
        "without T5": "known word, T5 dropped",
    }
    for (case, _), text in zip(written, read, strict=True):
        mark(titles[case.group], text == case.scene.word)
    return {row: (sum(marks), len(marks)) for row, marks in rows.items()}


def print_table(columns: dict[str, dict[str, tuple[int, int]]]) -> None:
    print("| " + " | ".join(["", *columns]) + " |")
    print("|" + " --- |" * (len(columns) + 1))
    for row, (_, count) in next(iter(columns.values())).items():
        figures = [f"{column[row][0] / column[row][1]:.0%}" for column in columns.values()]
        print("| " + " | ".join([f"{row} ({count})", *figures]) + " |")


def score_folders(pipeline: Path, folders: list[Path]) -> None:
    """Prints the table: the ceilings, then each folder of drawings at each number of steps."""
    data = sprites.load()
    found = cases(data.names)
    judge = scores.train_classifier(data)
    columns = {name: score(found, images, judge) for name, images in ceilings(pipeline, found).items()}
    for folder in folders:
        for steps in STEPS:
            images = [Image.open(folder / str(steps) / f"{i:03}.png") for i in range(len(found))]
            columns[f"{folder.name}, {steps} steps"] = score(found, images, judge)
    print_table(columns)


def draw_sheet(drawn: Path, out: Path, side: int = 160) -> None:
    """64 drawings with their prompts under them, evenly spread over all cases: none is picked."""
    found = cases(sprites.load().names)
    whole = [index for index, case in enumerate(found) if case.group != "without T5"]
    chosen = [whole[round(i * (len(whole) - 1) / 63)] for i in range(64)]
    sheet = Image.new("RGB", (8 * side, 8 * (side + 32)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, index in enumerate(chosen):
        x, y = place % 8 * side, place // 8 * (side + 32)
        picture = Image.open(drawn / f"{index:03}.png").resize((side - 4, side - 4), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x + 2, y + 2))
        text = "\n".join(textwrap.wrap(found[index].prompt, 30)[:2])
        pen.multiline_text((x + 4, y + side), text, fill="black", font_size=10, spacing=2)
    sheet.save(out, quality=85)


def time_models(pipelines: list[Path], rounds: int = 5) -> None:
    """Seconds for one picture on this machine's CPU, the models taking turns."""
    pipes = {folder.resolve().parent.name + "/" + folder.name: load(folder, "cpu") for folder in pipelines}
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds + 1):
        for name, pipe in pipes.items():
            for steps in STEPS:
                start = time.perf_counter()
                draw_batch(pipe, ["a fox on a blue background"], [turn], steps)
                if turn:  # the first round warms up
                    seconds.setdefault((name, steps), []).append(time.perf_counter() - start)
    print(f"seconds for one {SIDE}² picture, median of {rounds}, {torch.get_num_threads()} threads")
    for (name, steps), taken in seconds.items():
        print(f"{name}, {steps} steps: {np.median(taken):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    about: dict[str, Callable[[argparse.ArgumentParser], object]] = {
        "run": lambda p: p.add_argument("pipelines", type=Path, nargs="+"),
        "draw": lambda p: (
            p.add_argument("pipeline", type=Path),
            p.add_argument("out", type=Path),
            p.add_argument("--device", default="cpu"),
            p.add_argument("--batch", type=int, default=8),
        ),
        "score": lambda p: (
            p.add_argument("pipeline", type=Path, help="whose VAE to test"),
            p.add_argument("drawn", type=Path, nargs="+", help="folders that draw made"),
        ),
        "sheet": lambda p: (
            p.add_argument("drawn", type=Path, help="one folder of pictures"),
            p.add_argument("out", type=Path),
        ),
        "time": lambda p: p.add_argument("pipelines", type=Path, nargs="+"),
    }
    for name, add in about.items():
        add(commands.add_parser(name))
    options = parser.parse_args()
    if options.command == "draw":
        draw(options.pipeline, options.out, options.device, options.batch)
    elif options.command == "score":
        score_folders(options.pipeline, options.drawn)
    elif options.command == "sheet":
        draw_sheet(options.drawn, options.out)
    elif options.command == "time":
        time_models(options.pipelines)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folders = [
                Path(scratch) / (p.name if i == 0 else f"other {i}") for i, p in enumerate(options.pipelines)
            ]
            for pipeline, folder in zip(options.pipelines, folders, strict=True):
                draw(pipeline, folder, "cpu")
            score_folders(options.pipelines[0], folders)
        time_models(options.pipelines)


if __name__ == "__main__":
    main()
