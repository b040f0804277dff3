"""What a training picture shows (a `Scene`) and what is said about it (its caption).

Plain Python, no tensors. Each caption tells all that can vary in its scene but small jitter: the
less a prompt leaves open, the straighter the flow's paths are and the fewer steps they need.
"""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass

COLOURS = {
    "white": (255, 255, 255),
    "black": (20, 20, 20),
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (40, 90, 214),
    "yellow": (250, 214, 60),
    "orange": (245, 140, 40),
    "purple": (130, 60, 180),
    "pink": (250, 150, 190),
    "gray": (140, 140, 140),
    "brown": (120, 80, 50),
    "teal": (30, 150, 150),
}
COLOUR_NAMES = list(COLOURS)
SPELLINGS = {"gray": ["gray", "grey"], "teal": ["teal", "turquoise"]}
PAPER = (250, 246, 238)  # the background when none is named: a warm off-white, on purpose
INK = (34, 32, 38)  # letters when no colour is named; white on dark backgrounds
QUOTES = "\"'“”‘’"  # what `as_typed` puts around a word
UNNAMED = -1  # stands for PAPER as a background, INK as letters, "as it is" as a tint

# The share of each kind of picture. Words and pairs are harder than single objects: more of them.
KINDS = {"one": 0.25, "pair": 0.28, "sign": 0.25, "label": 0.22}
SIZES = {
    "": 0.66,
    "big": 0.88,
    "large": 0.88,
    "huge": 0.88,
    "small": 0.38,
    "little": 0.38,
    "tiny": 0.38,
}
LONGEST_WORD = 8  # letters; longer ones are not learned

BEFORE = [
    "a picture of",
    "a photo of",
    "a drawing of",
    "an illustration of",
    "an emoji of",
    "a painting of",
]
FILLERS = ["cute", "happy", "beautiful", "lovely", "nice", "funny", "cartoon"]
AFTER = [", high quality", ", detailed", ", digital art", ", cartoon style", ", simple"]
# What people put into negative prompts. Paired with arbitrary pictures, these words mean nothing,
# so that guidance away from them is guidance away from the average picture.
EMPTY_WORDS = [
    "blurry",
    "ugly",
    "low quality",
    "bad",
    "worst quality",
    "watermark",
    "deformed",
    "noise",
]
# The colour that people name although the picture has it anyway. It is never a tint.
NATURAL = {
    "apple": "red", "strawberry": "red", "tomato": "red", "heart": "red", "rose": "red", "car": "red",
    "balloon": "red", "cherries": "red", "banana": "yellow", "lemon": "yellow", "sun": "yellow",
    "star": "yellow", "moon": "yellow", "taxi": "yellow", "chick": "yellow", "frog": "green",
    "tree": "green", "cactus": "green", "turtle": "green", "fox": "orange", "pumpkin": "orange",
    "carrot": "orange", "whale": "blue", "fish": "blue", "dolphin": "blue", "dress": "blue",
    "diamond": "blue", "grapes": "purple", "pig": "pink", "tulip": "pink", "flower": "pink",
    "bear": "brown", "bat": "brown", "elephant": "gray", "wolf": "gray", "mouse": "gray",
    "ghost": "white", "sheep": "white", "snowman": "white", "cloud": "white",
}  # fmt: skip
NO_ARTICLE = {"bread", "corn", "broccoli", "lightning", "fries", "grapes", "cherries", "glasses"}
NO_ARTICLE |= {"scissors", "dice", "coffee", "beer", "wine"}


@dataclass(frozen=True)
class Scene:
    """One picture, in words of the renderer. Numbers index the sprites and `COLOUR_NAMES`.

    Letters are monospaced: where the k-th letter stands then depends on k and the word's length
    alone, not on the letters before it. That makes spelling far easier to learn.
    """

    kind: str  # "one", "pair", "sign" (a word alone) or "label" (an object above a word)
    first: int = 0  # left, above, or the only one
    second: int = 0  # right or below, in a pair
    vertical: bool = False
    size: float = SIZES[""]  # of a single object, as a share of the picture's shorter side
    tint: int = UNNAMED
    word: str = ""
    ink: int = UNNAMED
    background: int = UNNAMED

    @property
    def shows_object(self) -> bool:
        return self.kind != "sign"

    @property
    def shows_word(self) -> bool:
        return self.kind in ("sign", "label")


def background_rgb(scene: Scene) -> tuple[int, int, int]:
    return PAPER if scene.background == UNNAMED else COLOURS[COLOUR_NAMES[scene.background]]


def ink_rgb(scene: Scene) -> tuple[int, int, int]:
    """The letters' colour: the named one, else whichever of dark and white reads better."""
    if scene.ink != UNNAMED:
        return COLOURS[COLOUR_NAMES[scene.ink]]
    red, green, blue = background_rgb(scene)
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    return INK if luminance > 145 else (255, 255, 255)


def colour_word(index: int, rng: random.Random) -> str:
    name = COLOUR_NAMES[index]
    return rng.choice(SPELLINGS.get(name, [name]))


def with_article(noun: str, rng: random.Random) -> str:
    if noun in NO_ARTICLE or rng.random() < 0.1:
        return noun
    if rng.random() < 0.08:
        return f"the {noun}"
    vowel = noun[0] in "aeiou" and not noun.startswith(("uni", "ufo"))
    return f"an {noun}" if vowel else f"a {noun}"


def noun_for(names: list[str], tinted: bool, rng: random.Random) -> str:
    """The object's name, or one of its synonyms a quarter of the time."""
    noun = names[0] if len(names) == 1 or rng.random() < 0.75 else rng.choice(names[1:])
    if not tinted and noun in NATURAL and rng.random() < 0.3:
        noun = f"{NATURAL[noun]} {noun}"
    if rng.random() < 0.06:
        noun = f"{rng.choice(FILLERS)} {noun}"
    return noun


def random_word(words: list[str], rng: random.Random) -> str:
    """A word of the vocabulary, or random letters, which teach spelling what was never seen."""
    if rng.random() < 0.55:
        return rng.choice(words)
    return "".join(rng.choices(string.ascii_uppercase, k=rng.choice([1, 2, 3, 3, 4, 4, 5, 5, 6, 7])))


def quoted(word: str, rng: random.Random) -> str:
    """The word as people type it. It is drawn in capitals however it is typed."""
    spelling = rng.choices([word, word.lower(), word.capitalize()], [0.8, 0.14, 0.06])[0]
    if spelling == word and len(word) > 1 and rng.random() < 0.05:
        return word
    return f'"{spelling}"'


def say_one(scene: Scene, noun: str, size: str, rng: random.Random) -> str:
    adjectives = [size] if size else []
    if scene.tint != UNNAMED:
        adjectives.append(colour_word(scene.tint, rng))
    caption = with_article(" ".join([*adjectives, noun]), rng)
    return f"{rng.choice(BEFORE)} {caption}" if rng.random() < 0.15 else caption


def say_pair(scene: Scene, first: str, second: str, rng: random.Random) -> str:
    first, second = with_article(first, rng), with_article(second, rng)
    if scene.vertical:
        forward, backward = ["above", "above", "on top of", "over"], ["below", "below", "under"]
    else:
        forward = ["to the left of", "to the left of", "left of", "next to", "and", "and"]
        backward = ["to the right of", "to the right of", "right of"]
    if rng.random() < len(forward) / (len(forward) + len(backward)):
        return f"{first} {rng.choice(forward)} {second}"
    return f"{second} {rng.choice(backward)} {first}"


def say_sign(scene: Scene, rng: random.Random) -> str:
    word = quoted(scene.word, rng)
    if scene.ink != UNNAMED:
        ink = colour_word(scene.ink, rng)
        forms = [f"the word {word} in {ink} letters", f"a sign that says {word} in {ink} letters"]
        return rng.choice([*forms, f"the word {word} in {ink}", f"{ink} text {word}"])
    forms = [
        f"a sign that says {word}",
        f"a sign that says {word}",
        f"the word {word}",
        f"the word {word}",
    ]
    return rng.choice([*forms, f"the text {word}", f"a sign with the word {word}", f"text {word}", word])


def say_label(scene: Scene, noun: str, rng: random.Random) -> str:
    noun, word = with_article(noun, rng), quoted(scene.word, rng)
    forms = [
        "with the word",
        "with the word",
        "holding a sign that says",
        "and the text",
        "with the text",
    ]
    return f"{noun} {rng.choice([*forms, 'and the word', 'saying'])} {word}"


def say_background(scene: Scene, rng: random.Random) -> str:
    if scene.background == UNNAMED:
        return ""
    colour = colour_word(scene.background, rng)
    forms = [f" on a {colour} background", f" on {colour}", f" with a {colour} background"]
    return rng.choices([*forms, f", {colour} background"], [0.7, 0.1, 0.1, 0.1])[0]


def sample_scene(names: list[list[str]], words: list[str], rng: random.Random) -> tuple[Scene, str]:
    """A random scene and a caption of it."""
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    first, second = rng.sample(range(len(names)), 2)
    size = rng.choice(list(SIZES)[1:]) if kind == "one" and rng.random() < 0.35 else ""
    background = rng.randrange(len(COLOURS)) if rng.random() < 0.6 else UNNAMED
    # Neither a tinted object nor coloured letters may vanish into their background.
    free = [index for index in range(len(COLOURS)) if index != background]
    if background == UNNAMED:
        free.remove(COLOUR_NAMES.index("white"))
    natural = {NATURAL[name] for name in names[first] if name in NATURAL}
    tints = [index for index in free if COLOUR_NAMES[index] not in natural]
    scene = Scene(
        kind=kind,
        first=first,
        second=second,
        vertical=kind == "pair" and rng.random() < 0.45,
        size=SIZES[size],
        tint=rng.choice(tints) if kind == "one" and rng.random() < 0.12 else UNNAMED,
        word=random_word(words, rng) if kind in ("sign", "label") else "",
        ink=rng.choice(free) if kind == "sign" and rng.random() < 0.4 else UNNAMED,
        background=background,
    )
    return scene, say(scene, names, size, rng)


def say(scene: Scene, names: list[list[str]], size: str, rng: random.Random) -> str:
    """A caption of the scene; `size` is the word for a single object's size, or empty."""
    if rng.random() < 0.015:
        return ", ".join(rng.sample(EMPTY_WORDS, rng.randint(1, 3)))
    first = noun_for(names[scene.first], scene.tint != UNNAMED, rng)
    second = noun_for(names[scene.second], False, rng)
    if scene.kind == "one":
        caption = say_one(scene, first, size, rng)
    elif scene.kind == "pair":
        caption = say_pair(scene, first, second, rng)
    elif scene.kind == "sign":
        caption = say_sign(scene, rng)
    else:
        caption = say_label(scene, first, rng)
    after = rng.choice(AFTER) if rng.random() < 0.04 else ""
    return as_typed(caption + say_background(scene, rng) + after, rng)


def as_typed(caption: str, rng: random.Random) -> str:
    """The same caption with a capital, a full stop or other quotes, as people and phones type."""
    if rng.random() < 0.25:
        caption = caption[0].upper() + caption[1:]
    if rng.random() < 0.05:
        caption += "."
    if caption.count('"') == 2 and rng.random() < 0.08:
        before, word, behind = caption.split('"')
        opening, closing = rng.choice(["''", "“”", "‘’"])
        caption = f"{before}{opening}{word}{closing}{behind}"
    return caption


def misquoted(caption: str, word: str, other: str) -> str:
    """The caption with `other` where it says `word`, in the same letters and the same quotes.

    This is how the CLIPs read a caption in training, with `other` drawn anew. A word that has
    nothing to do with the picture teaches nothing, so spelling is left to T5, which reads quotes
    letter by letter; and every word is one that the CLIPs have seen do nothing. A caption that does
    not say `word` comes back as it is.
    """
    if not word:
        return caption

    def like(found: re.Match[str]) -> str:
        if found[0].isupper():
            return other.upper()
        return other.lower() if found[0].islower() else other.capitalize()

    quoted_word = rf"(?<=[{QUOTES}]){word}(?=[{QUOTES}])"
    caption, count = re.subn(quoted_word, like, caption, flags=re.IGNORECASE)
    # Without quotes only capitals are the word: "a bear with the word BEAR".
    return caption if count else re.sub(rf"\b{word}\b", like, caption)
