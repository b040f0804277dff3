"""Draws scenes: sprites and letters composed on a flat background, in batches, on any device.

A pool of pictures is drawn once and trained on many times: composing pictures inside the training
loop would cost more than the training step itself.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from training.captions import (
    COLOUR_NAMES,
    COLOURS,
    LONGEST_WORD,
    UNNAMED,
    Scene,
    background_rgb,
    ink_rgb,
)
from training.sprites import LETTER_BOX, Sprites

# A letter's cell width by the word's length, where the picture's shorter side is 256.
SIGN_CELLS = {4: 52, 6: 38, 8: 28}
LABEL_CELLS = {6: 38, 8: 28}


def paste(
    canvas: torch.Tensor,
    layer: torch.Tensor,
    centre: torch.Tensor,
    size: torch.Tensor,
    angle: torch.Tensor | None = None,
) -> torch.Tensor:
    """Alpha-composites `layer` [B, 4, h, w] (premultiplied, 0..1) onto `canvas` [B, 3, H, W].

    `centre` and `size` are [B, 2] as (x, y) and (width, height) in pixels, `angle` [B] in radians.
    """
    batch, _, height, width = canvas.shape
    angle = torch.zeros(batch, device=canvas.device) if angle is None else angle
    cos, sin = torch.cos(angle), torch.sin(angle)
    half = size / 2
    # affine_grid asks: where in the layer (-1..1) does each canvas pixel (-1..1) come from?
    theta = torch.stack(
        [
            torch.stack([cos * width / 2, sin * height / 2], 1) / half[:, :1],
            torch.stack([-sin * width / 2, cos * height / 2], 1) / half[:, 1:],
        ],
        1,
    )
    middle = centre / torch.tensor([width, height], device=canvas.device) * 2 - 1
    shift = -(theta @ middle[:, :, None])
    grid = F.affine_grid(torch.cat([theta, shift], 2), [batch, 4, height, width], align_corners=False)
    # Bilinear rather than bicubic: with the supersampling of `render` it neither rings nor jags.
    drawn = F.grid_sample(layer, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return canvas * (1 - drawn[:, 3:]) + drawn[:, :3]


def object_layers(scenes: list[Scene], indices: list[int], sprites: Sprites) -> torch.Tensor:
    """The sprites with these indices, tinted where the scene says so: [B, 4, 128, 128]."""
    device = sprites.objects.device
    layer = sprites.objects[torch.tensor(indices, device=device)].float() / 255
    rgb, alpha = layer[:, :3], layer[:, 3:]
    tints = [COLOURS[COLOUR_NAMES[s.tint]] if s.tint != UNNAMED else (0, 0, 0) for s in scenes]
    tint = torch.tensor(tints, device=device)[:, :, None, None] / 255
    tinted = torch.tensor([s.tint != UNNAMED for s in scenes], device=device)[:, None, None, None]
    grey = rgb.mean(1, keepdim=True)
    # Below middle grey shade the tint, above it lighten it: eyes stay dark and highlights light.
    dyed = torch.where(grey < 0.6, tint * grey / 0.6, tint + (1 - tint) * (grey - 0.6) / 0.4)
    return torch.cat([torch.where(tinted, dyed, rgb) * alpha, alpha], 1)


def word_layers(scenes: list[Scene], sprites: Sprites) -> torch.Tensor:
    """Each scene's word in its ink, centred in a strip of eight cells: [B, 4, 96, 8 · 72]."""
    device = sprites.letters.device
    blank = torch.zeros_like(sprites.letters[:1])
    alphabet = torch.cat([sprites.letters, blank])
    rows = [[ord(c) - ord("A") for c in s.word[:LONGEST_WORD]] for s in scenes]
    padded = torch.tensor([row + [26] * (LONGEST_WORD - len(row)) for row in rows], device=device)
    strip = alphabet[padded].permute(0, 2, 1, 3).flatten(2).float() / 255  # [B, 96, 576]
    ink = torch.tensor([ink_rgb(s) for s in scenes], device=device) / 255
    return torch.cat([ink[:, :, None, None] * strip[:, None], strip[:, None]], 1)


def cell_width(scene: Scene) -> int:
    cells = SIGN_CELLS if scene.kind == "sign" else LABEL_CELLS
    return next(width for longest, width in cells.items() if len(scene.word) <= longest)


def object_boxes(scene: Scene, width: int, height: int) -> list[tuple[float, float, float]]:
    """Where its objects stand: (centre x, centre y, side) in pixels, for the first and the second."""
    short = min(width, height)
    middle = (width / 2, height / 2)
    if scene.kind == "one":
        return [(*middle, scene.size * short)]
    if scene.kind == "label":
        return [(middle[0], middle[1] - 0.13 * short, 0.56 * short)]
    if scene.vertical:
        side = 0.84 * min(width, height / 2)
        return [(middle[0], height / 4, side), (middle[0], height * 3 / 4, side)]
    side = 0.84 * min(width / 2, height)
    return [(width / 4, middle[1], side), (width * 3 / 4, middle[1], side)]


def word_box(scene: Scene, width: int, height: int) -> tuple[float, float, float, float]:
    """Where the strip of `word_layers` stands: (centre x, centre y, width, height) in pixels."""
    short = min(width, height)
    cell = cell_width(scene) * short / 256
    x = width / 2 + cell * (LONGEST_WORD - len(scene.word)) / 2
    y = height / 2 + (0.33 * short if scene.kind == "label" else 0)
    return x, y, cell * LONGEST_WORD, cell * LETTER_BOX[1] / LETTER_BOX[0]


def render(
    scenes: list[Scene], sprites: Sprites, width: int, height: int, noise: torch.Generator
) -> torch.Tensor:
    """Draws the scenes, each with a little jitter from `noise`: [B, 3, height, width] in -1..1."""
    device, batch = sprites.objects.device, len(scenes)
    # Small pictures are drawn larger and averaged down, or thin strokes would be jagged.
    over = 2 if min(width, height) < 384 else 1
    width, height = width * over, height * over
    unit = min(width, height) / 256

    def jitter(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device=device, generator=noise) * 2 - 1

    background = torch.tensor([background_rgb(s) for s in scenes], device=device) / 255
    canvas = background[:, :, None, None].expand(batch, 3, height, width)
    for which in (0, 1):
        rows = [i for i, s in enumerate(scenes) if s.shows_object and (which == 0 or s.kind == "pair")]
        if not rows:
            continue
        shown = [scenes[i] for i in rows]
        boxes = torch.tensor([object_boxes(s, width, height)[which] for s in shown], device=device)
        layer = object_layers(shown, [s.second if which else s.first for s in shown], sprites)
        centre = boxes[:, :2] + 4 * unit * jitter(len(rows), 2)
        side = boxes[:, 2:] * (1 + 0.04 * jitter(len(rows), 1))
        angle = math.radians(5) * jitter(len(rows))
        canvas = replace_rows(canvas, rows, paste(canvas[rows], layer, centre, side.expand(-1, 2), angle))
    rows = [i for i, s in enumerate(scenes) if s.shows_word]
    if rows:
        shown = [scenes[i] for i in rows]
        boxes = torch.tensor([word_box(s, width, height) for s in shown], device=device)
        centre = boxes[:, :2] + 2 * unit * jitter(len(rows), 2)
        canvas = replace_rows(
            canvas, rows, paste(canvas[rows], word_layers(shown, sprites), centre, boxes[:, 2:])
        )
    if over > 1:
        canvas = F.avg_pool2d(canvas, over)
    return canvas * 2 - 1


def replace_rows(batch: torch.Tensor, rows: list[int], values: torch.Tensor) -> torch.Tensor:
    return batch.index_copy(0, torch.tensor(rows, device=batch.device), values)
