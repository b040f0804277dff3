"""Teaches T5 to spell before any picture is drawn: SD3's T5, too, comes from a training of its own
(Raffel et al. 2020) and stays as it is.

From nothing and through an MMDiT alone it does not learn to: after 6,000 steps its words had the
right length and the wrong letters. Here a small reader asks T5's output which letter stands in each
column of image tokens, as the MMDiT will. Only T5 is kept.
"""

from __future__ import annotations

import random
import time

import torch
import torch.nn.functional as F

from training.captions import LONGEST_WORD, Scene, sample_scene
from training.recipe import Recipe
from training.render import word_box
from training.schedule import warm_cosine
from training.sprites import Sprites, read_words
from training.text import T5_WIDTH, TextStack

SIDE = 256
COLUMNS = SIDE // 16  # of image tokens
LETTERS = 27  # none, A to Z
HEAD = 48


def letters_by_column(scene: Scene) -> list[int]:
    """For each column of image tokens the letter at its middle: 1 to 26, or 0 for none."""
    centre, _, width, _ = word_box(scene, SIDE, SIDE)
    left, cell = centre - width / 2, width / LONGEST_WORD
    places = [int((SIDE / COLUMNS * (column + 0.5) - left) // cell) for column in range(COLUMNS)]
    return [ord(scene.word[place]) - ord("A") + 1 if 0 <= place < len(scene.word) else 0 for place in places]


class Reader(torch.nn.Module):
    """One attention from columns to T5's tokens, its keys normalised as the MMDiT's are."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = torch.nn.Parameter(torch.randn(COLUMNS, HEAD))
        self.key = torch.nn.Linear(T5_WIDTH, HEAD, bias=False)
        self.value = torch.nn.Linear(T5_WIDTH, 2 * HEAD)
        self.letter = torch.nn.Linear(2 * HEAD, LETTERS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """T5's output [B, length, 192] to logits [B, 16, 27]."""
        keys = F.rms_norm(self.key(tokens), (HEAD,))
        seen = torch.softmax(self.queries @ keys.transpose(1, 2) * HEAD**-0.5, -1)
        return self.letter(F.gelu(seen @ self.value(tokens)))


def sample_words(recipe: Recipe, sprites: Sprites) -> tuple[list[Scene], list[str]]:
    """Scenes with a word, and captions that say it."""
    rng, words = random.Random(recipe.seed + 4), read_words()
    scenes, captions = [], []
    while len(scenes) < recipe.spelling_captions:
        scene, caption = sample_scene(sprites.names, words, rng)
        if scene.shows_word and scene.word.lower() in caption.lower():
            scenes.append(scene)
            captions.append(caption)
    return scenes, captions


def teach(recipe: Recipe, sprites: Sprites, text: TextStack) -> None:
    """Trains `text.t5` in place, and prints how many whole words it can be read from."""
    device = sprites.objects.device
    scenes, captions = sample_words(recipe, sprites)
    ids = text.tokenize(captions, captions)[1].to(device).long()
    letters = torch.tensor([letters_by_column(scene) for scene in scenes], device=device)
    held_out = min(2000, len(ids) // 4)
    reader = Reader().to(device)
    parameters = [*text.t5.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, recipe.spelling_rate, betas=(0.9, 0.99), weight_decay=0.01)
    start = time.monotonic()
    for step in range(recipe.spelling_steps):
        warm_cosine(optimizer, recipe.spelling_rate, step, recipe.spelling_steps)
        picks = torch.randint(held_out, len(ids), (recipe.spelling_batch,), device=device)
        logits = reader(text.t5(ids[picks]).last_hidden_state)
        loss = F.cross_entropy(logits.flatten(0, 1), letters[picks].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 250 == 0 or step == recipe.spelling_steps - 1:
            seconds = time.monotonic() - start
            print(f"spelling {step} {seconds:.0f}s loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        right = reader(text.t5(ids[:held_out]).last_hidden_state).argmax(2) == letters[:held_out]
    vocabulary = set(read_words())
    for name, known in (("known", True), ("random", False)):
        rows = [row for row in range(held_out) if (scenes[row].word in vocabulary) == known]
        share = right[rows].all(1).float().mean().item()
        print(f"spelling: {share:.1%} of {len(rows)} {name} words read whole", flush=True)
