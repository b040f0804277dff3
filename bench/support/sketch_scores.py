"""How `sketch.py` judges pictures, by means that training did not use: the border's colour, a
classifier trained on the renderer's pictures (never on the model's), and an OCR program.

Needs tesseract (Debian package tesseract-ocr) for the words.
"""

from __future__ import annotations

import io
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from training.captions import COLOURS, SIZES, Scene
from training.render import object_boxes, render
from training.sprites import Sprites

CLASSIFIER_SIDE = 64


def background_colour(picture: Image.Image) -> str:
    """The named colour nearest to the median of the picture's outermost pixels."""
    pixels = np.asarray(picture.convert("RGB"), dtype=float)
    frame = [pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]]
    median = np.median(np.concatenate([part.reshape(-1, 3) for part in frame]), axis=0)
    return min(COLOURS, key=lambda name: np.sum((median - COLOURS[name]) ** 2))


def letters_read(picture: Image.Image) -> str:
    """What tesseract reads as one line in the picture, three times enlarged: A to Z only."""
    grey = ImageOps.autocontrast(picture.convert("L"))
    grey = grey.resize((grey.width * 3, grey.height * 3), Image.Resampling.BICUBIC)
    png = io.BytesIO()
    grey.save(png, "PNG")
    command = ["tesseract", "-", "-", "--psm", "7"]
    done = subprocess.run(
        command,
        input=png.getvalue(),
        capture_output=True,
        check=True,
        env={"OMP_THREAD_LIMIT": "1", "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    return "".join(letter for letter in done.stdout.decode().upper() if "A" <= letter <= "Z")


def read_all(pictures: list[Image.Image]) -> list[str]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(letters_read, pictures))


def crop_word(picture: Image.Image, scene: Scene) -> Image.Image:
    """The half of the picture in which a sign's word stands, or the third below a labelled object."""
    width, height = picture.size
    top, bottom = (0.25, 0.75) if scene.kind == "sign" else (0.68, 1.0)
    return picture.crop((0, round(top * height), width, round(bottom * height)))


def crop_objects(picture: Image.Image, scene: Scene) -> list[Image.Image]:
    """A square around each place where an object belongs, as the classifier wants it."""
    width, height = picture.size
    crops = []
    for x, y, side in object_boxes(scene, width, height):
        half = min(width, height) / 2 if scene.kind == "one" else side * 0.58
        square = picture.convert("RGB").crop(
            tuple(round(v) for v in (x - half, y - half, x + half, y + half))
        )
        crops.append(square.resize((CLASSIFIER_SIDE, CLASSIFIER_SIDE), Image.Resampling.BILINEAR))
    return crops


class Classifier(torch.nn.Module):
    """A small convolutional network that names the object in a 64 × 64 picture."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        channels = 3
        for width in (24, 48, 96, 128):
            layers += [
                torch.nn.Conv2d(channels, width, 3, padding=1, bias=False),
                torch.nn.BatchNorm2d(width),
                torch.nn.ReLU(),
                torch.nn.MaxPool2d(2),
            ]
            channels = width
        self.features = torch.nn.Sequential(*layers)
        self.head = torch.nn.Linear(channels * 16, classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(pictures).flatten(1))

    @torch.no_grad()
    def name(self, crops: list[Image.Image]) -> list[int]:
        """The object's index in each crop."""
        arrays = np.stack([np.asarray(crop) for crop in crops])
        batch = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.eval()(batch).argmax(1).tolist()


def classifier_pictures(sprites: Sprites, each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`each` pictures of every object on random backgrounds, at the sizes that crops show."""
    rng, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    labels = [index for index in range(len(sprites.names)) for _ in range(each)]
    rng.shuffle(labels)
    sizes = [SIZES[""], SIZES["big"], 0.8]
    scenes = [
        Scene("one", first=label, size=rng.choice(sizes), background=rng.randint(-1, len(COLOURS) - 1))
        for label in labels
    ]
    side = CLASSIFIER_SIDE
    drawn = [render(scenes[i : i + 128], sprites, side, side, noise) for i in range(0, len(scenes), 128)]
    return torch.cat(drawn), torch.tensor(labels)


def train_classifier(sprites: Sprites, steps: int = 900, seed: int = 1) -> Classifier:
    """Trains on the renderer's pictures alone, and prints how it does on others of them."""
    torch.manual_seed(seed)
    pictures, labels = classifier_pictures(sprites, 30, seed)
    model = Classifier(len(sprites.names))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        picks = torch.randint(0, len(labels), (96,))
        batch = pictures[picks]
        shift = torch.randint(-4, 5, (2,)).tolist()
        batch = torch.roll(batch, shift, (2, 3)) + 0.05 * torch.rand(1) * torch.randn_like(batch)
        if torch.rand(1) < 0.5:  # a VAE softens edges
            batch = F.avg_pool2d(F.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        loss = F.cross_entropy(model(batch), labels[picks])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    pictures, labels = classifier_pictures(sprites, 3, seed + 1)
    with torch.no_grad():
        right = (model.eval()(pictures).argmax(1) == labels).float().mean().item()
    print(
        f"classifier: {right:.1%} right on {len(labels)} unseen pictures of the renderer",
        flush=True,
    )
    return model
