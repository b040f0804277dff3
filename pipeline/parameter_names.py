"""What other programs call our parameters, so that a refusal of one of these names can say ours."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

_ELSEWHERE = {
    "prompt": "text input inputs description caption positive positive_prompt",
    "negative_prompt": "negative neg neg_prompt uc exclude",
    "width": "w image_width",
    "height": "h image_height",
    "size": "image_size resolution dimensions aspect_ratio ratio",
    "steps": "step num_inference_steps inference_steps n_steps num_steps sampling_steps sample_steps "
    "num_sampling_steps diffusion_steps",
    "guidance": "cfg cfg_scale guidance_scale true_cfg_scale unconditional_guidance_scale scale",
    "seed": "random_seed noise_seed manual_seed",
    "images": "n count samples num_images n_images number_of_images num_images_per_prompt image_count "
    "batch_size batch_count n_iter num_outputs num_samples n_samples",
    "model": "model_id model_name checkpoint ckpt sd_model_checkpoint engine engine_id",
    "job": "id job_id request_id task_id",
    "output_format": "format image_format file_format",
}
"""By the name that /generate has for it, or OpenAI's API: how A1111's and ComfyUI's APIs, diffusers,
Replicate, fal, Stability and others name the same."""


def _plain(name: str) -> str:
    """The name without what dialects differ in: cfgScale, cfg-scale and cfg_scale are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


_OURS = {_plain(name): ours for ours, names in _ELSEWHERE.items() for name in [ours, *names.split()]}
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
    ours = _OURS.get(plain)
    if ours is not None and ours in has:
        return f" Use {has[ours]} instead of {name}."
    plains = {_plain(one): one for one in has}
    close = difflib.get_close_matches(plain[:60], plains, 1, _CLOSE)
    return f" Perhaps {has[plains[close[0]]]} is meant." if close else ""
