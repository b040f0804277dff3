"""Every parameter of a drawing, declared once: its name, what it may be, where its bounds and its default
come from, and its words. What a client sends, the job, the recipe, every API, the command line, the page and
the docs' tables are made from these declarations: adding a parameter is one more of them, and the code that
uses it.

Imports nothing slow: the command line's help is made from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "whole", "number", "seed", "id"]
"""What a value is; request.py has the checks of each."""
Task = Literal["text-to-image"]

MAX_SEED = 2**53 - 1
"""The largest integer that JavaScript's numbers carry exactly."""
MAX_PROMPT = 10_000
"""Characters. Far more than any text encoder reads (SD3.5: 512 tokens), so nothing sensible is refused."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a drawing. Null, and leaving it out, mean its default."""

    name: str
    """What /generate, the job and the recipe call it."""
    kind: Kind
    """What a value of it is."""
    about: str
    """What it says, in one sentence."""
    label: str = ""
    """Its name on the page."""
    required: bool = False
    """Whether a request must have it."""
    limit: str = ""
    """Which of a model's `limits` in models.yaml bounds it; empty: none does."""
    bounds: tuple[float, float] | None = None
    """Where no limit does: [min, max] with every model, both allowed; None: anything of its kind may be."""
    models_default: bool = False
    """Whether its default is the one of its name among a model's `defaults` in models.yaml."""
    default: Any = None
    """Where it isn't: its default with every model. None: the code makes one."""
    unset: str = ""
    """What null means in words, where they aren't simply its default's."""
    tasks: tuple[Task, ...] = ("text-to-image",)
    """In which it means something; a request for another may not have it."""
    increment: float = 1
    """How far one press of a key moves its slider on the page."""
    infotext: tuple[int, str] | None = None
    """Its place, lowest first, and its name among the settings of the recipe's `parameters` text (recipe.py);
    None: it isn't one of them."""
    flag: str = ""
    """Its option of the command line; empty: it has none."""
    metavar: str = "N"
    """What the help calls that option's value."""
    elsewhere: str = ""
    """What A1111's and ComfyUI's APIs, diffusers, Replicate, fal, Stability and others call it."""

    def bounds_of(self, limits: Mapping[str, Any]) -> tuple[float, float] | None:
        """[min, max], both allowed, with a model that has these limits; None: it isn't bounded so."""
        return tuple(limits[self.limit]) if self.limit else self.bounds

    def widest(self, models: Collection[Mapping[str, Any]]) -> tuple[float, float] | None:
        """[min, max] over several models, given by their limits; None: it isn't bounded so."""
        found = [bounds for bounds in map(self.bounds_of, models) if bounds is not None]
        return (min(low for low, _ in found), max(high for _, high in found)) if found else None

    def default_of(self, defaults: Mapping[str, Any]) -> Any:
        """Its value where a request says nothing, with a model that has these defaults."""
        return defaults[self.name] if self.models_default else self.default

    @property
    def without(self) -> str:
        """What null, or leaving it out, means in words."""
        default = f"{self.default:g}" if isinstance(self.default, float) else f"{self.default}"
        return self.unset or ("the model's default" if self.models_default else default)

    @property
    def null(self) -> str:
        """The sentence that says what null means."""
        return f"{'Null or -1' if self.kind == 'seed' else 'Null'}: {self.without}."

    @property
    def short(self) -> str:
        """`about` as a part of another sentence."""
        return (self.about[:1].lower() + self.about[1:]).removesuffix(".")


PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            name="prompt",
            kind="text",
            about="What to draw: the subject, what surrounds it, the style.",
            label="Prompt",
            required=True,
            elsewhere="text input inputs description caption positive positive_prompt",
        ),
        Parameter(
            name="model",
            kind="text",
            about="A model's id.",
            label="Model",
            unset="the best that can run here",
            infotext=(80, "Model"),
            flag="--model",
            metavar="ID",
            elsewhere="model_id model_name checkpoint ckpt sd_model_checkpoint engine engine_id",
        ),
        Parameter(
            name="negative_prompt",
            kind="text",
            about="What to keep out of the picture; read only where guidance is on.",
            label="Negative prompt",
            default="",
            unset="nothing",
            flag="--negative",
            metavar="TEXT",
            elsewhere="negative neg neg_prompt uc exclude",
        ),
        Parameter(
            name="width",
            kind="whole",
            about="Width in pixels; snapped to the model's multiple.",
            label="Width",
            limit="side",
            models_default=True,
            flag="--width",
            metavar="PIXELS",
            elsewhere="w image_width",
        ),
        Parameter(
            name="height",
            kind="whole",
            about="Height in pixels; snapped to the model's multiple.",
            label="Height",
            limit="side",
            models_default=True,
            flag="--height",
            metavar="PIXELS",
            elsewhere="h image_height",
        ),
        Parameter(
            name="steps",
            kind="whole",
            about="Denoising steps: more take longer.",
            label="Steps",
            limit="steps",
            models_default=True,
            infotext=(10, "Steps"),
            flag="--steps",
            elsewhere="step num_inference_steps inference_steps n_steps num_steps sampling_steps "
            "sample_steps num_sampling_steps diffusion_steps",
        ),
        Parameter(
            name="guidance",
            kind="number",
            about="Classifier-free guidance scale: how closely the picture follows the prompt.",
            label="Guidance",
            limit="guidance",
            models_default=True,
            increment=0.1,
            infotext=(30, "CFG scale"),
            flag="--guidance",
            metavar="SCALE",
            elsewhere="cfg cfg_scale guidance_scale true_cfg_scale unconditional_guidance_scale scale",
        ),
        Parameter(
            name="seed",
            kind="seed",
            about="0 to 2^53 - 1; the same seed and settings draw the same picture; image k uses seed + k.",
            label="Seed",
            bounds=(0, MAX_SEED),
            unset="a random one",
            infotext=(40, "Seed"),
            flag="--seed",
            elsewhere="random_seed noise_seed manual_seed",
        ),
        Parameter(
            name="images",
            kind="whole",
            about="How many pictures.",
            label="Images",
            limit="images",
            default=1,
            flag="--images",
            elsewhere="n count samples num_images n_images number_of_images num_images_per_prompt "
            "image_count batch_size batch_count n_iter num_outputs num_samples n_samples",
        ),
        Parameter(
            name="job",
            kind="id",
            about="A UUID of your own, to follow the job by and to stop it.",
            unset="one is made",
            elsewhere="id job_id request_id task_id",
        ),
    )
}
"""By name, in the order of /generate, which clients may rely on: a new one comes last."""

SPECIAL = frozenset({"prompt", "model", "negative_prompt", "width", "height", "seed", "images", "job"})
"""Those that the engine, and some of who derives from these declarations, have code of their own for. Every
other one is a number within its bounds, and handled by its declaration alone."""


def parameters(but: Collection[str] = ()) -> list[Parameter]:
    """All declarations in their order, but those of these names."""
    return [parameter for parameter in PARAMETERS.values() if parameter.name not in but]


_NO_PARAMETERS = {
    "size": "image_size resolution dimensions aspect_ratio ratio",
    "output_format": "format image_format file_format",
}
"""What isn't a parameter of a drawing but of some clients' dialects, and what others call it."""


def _plain(name: str) -> str:
    """The name without what dialects differ in: cfgScale, cfg-scale and cfg_scale are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


_CLOSE = 0.8
"""Of difflib's ratio: one letter of five may be wrong."""


def instead(name: str, has: Mapping[str, str]) -> str:
    """A sentence, with a space before it, that says what to use instead of this name, or what was perhaps
    meant by a slip of the pen; empty where nothing is known.

    Args:
        name: the one that is no parameter.
        has: what the dialect has, by our names, in its own words: {"images": "n"}.
    """
    plain = _plain(name)
    others = {ours.name: ours.elsewhere for ours in parameters()} | _NO_PARAMETERS
    for ours, names in others.items():
        if ours in has and plain in map(_plain, [ours, *names.split()]):
            return f" Use {has[ours]} instead of {name}."
    plains = {_plain(one): one for one in has}
    close = difflib.get_close_matches(plain[:60], plains, 1, _CLOSE)
    return f" Perhaps {has[plains[close[0]]]} is meant." if close else ""
