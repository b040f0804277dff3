"""The raw material of every training picture: emoji sprites and letter masks, in one small file.

`python -m training.sprites` rebuilds `sprites.npz` from two Debian packages, fonts-noto-color-emoji
(font SIL OFL 1.1, images Apache 2.0) and fonts-dejavu (a free Bitstream Vera derivative). The file
is committed, so training and the benchmark need neither package.
"""

from __future__ import annotations

import argparse
import io
import json
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
SPRITES = HERE / "sprites.npz"
EMOJI_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
LETTER_FONT = Path("/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf")
EMOJI_FONT_SIZE = 109  # the only size the font's bitmaps come in
SPRITE_SIDE = 128
LETTER_BOX = (72, 96)  # width, height of one letter's cell: monospaced, see `captions.Scene`


@dataclass(frozen=True)
class Sprites:
    """Everything the renderer composes: pictures of objects and masks of the letters A to Z."""

    names: list[list[str]]  # for each object its name, then its synonyms
    objects: torch.Tensor  # [N, 4, 128, 128] uint8, RGBA, not premultiplied
    letters: torch.Tensor  # [26, 96, 72] uint8, coverage

    def to(self, device: torch.device) -> Sprites:
        return Sprites(self.names, self.objects.to(device), self.letters.to(device))

    def first(self, count: int) -> Sprites:
        """The first `count` objects only, for the smoke run."""
        return Sprites(self.names[:count], self.objects[:count], self.letters)


def read_objects() -> list[tuple[str, list[str]]]:
    """`objects.txt` as (emoji, names)."""
    lines = (HERE / "objects.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" ", 1) for line in lines if line and not line.startswith("#")]
    return [(emoji, [name.strip() for name in names.split(",")]) for emoji, names in rows]


def read_words() -> list[str]:
    """The vocabulary of `words.txt`, in capitals."""
    return (HERE / "words.txt").read_text(encoding="utf-8").split()


def draw_emoji(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji, cropped to what is drawn and centred in a square of `SPRITE_SIDE` pixels."""
    image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((4, 4), emoji, font=font, embedded_color=True)
    box = image.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"{EMOJI_FONT.name} has no picture for {emoji!r}: remove it from objects.txt")
    image = image.crop(box)
    scale = (SPRITE_SIDE - 4) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SPRITE_SIDE, SPRITE_SIDE), (0, 0, 0, 0))
    square.paste(image, ((SPRITE_SIDE - width) // 2, (SPRITE_SIDE - height) // 2))
    return square


def draw_letter(letter: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """One capital, centred in its cell: [96, 72] uint8 coverage."""
    width, height = LETTER_BOX
    image = Image.new("L", LETTER_BOX, 0)
    ImageDraw.Draw(image).text((width / 2, height / 2), letter, font=font, fill=255, anchor="mm")
    return np.asarray(image)


def build(path: Path) -> None:
    """Draws every object of `objects.txt` and every letter, and writes them to `path`."""
    emoji_font = ImageFont.truetype(str(EMOJI_FONT), EMOJI_FONT_SIZE)
    letter_font = ImageFont.truetype(str(LETTER_FONT), 112)
    rows = read_objects()
    pngs = []
    for emoji, _ in rows:
        png = io.BytesIO()
        image = draw_emoji(emoji, emoji_font)
        # 128 colours are indistinguishable here, and keep the whole file below a megabyte.
        image.quantize(128, method=Image.Quantize.FASTOCTREE).save(png, "PNG", optimize=True)
        pngs.append(np.frombuffer(png.getvalue(), np.uint8))
    letters = np.stack([draw_letter(letter, letter_font) for letter in string.ascii_uppercase])
    np.savez_compressed(
        path,
        data=np.concatenate(pngs),
        sizes=np.array([len(png) for png in pngs]),
        names=json.dumps([names for _, names in rows]),
        letters=letters,
    )


def load(path: Path = SPRITES) -> Sprites:
    """Reads what `build` wrote."""
    with np.load(path) as archive:
        names = json.loads(str(archive["names"]))
        ends = np.cumsum(archive["sizes"])
        chunks = np.split(archive["data"], ends[:-1])
        letters = torch.from_numpy(archive["letters"])
    images = [np.asarray(Image.open(io.BytesIO(chunk.tobytes())).convert("RGBA")) for chunk in chunks]
    objects = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Sprites(names, objects, letters)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Rebuild sprites.npz from the system's fonts.")
    parser.add_argument("--out", type=Path, default=SPRITES)
    build(parser.parse_args().out)
