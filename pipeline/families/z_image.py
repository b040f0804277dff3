"""Z-Image: one language model reads the prompt, in a chat template; the VAE is FLUX.1's."""

from __future__ import annotations

from typing import Any

from pipeline.families.family import Cost, Family, PreviewFactors, TextEncoder, as_called


def _encode(pipe: Any, prompt: str, negative_prompt: str | None, tokens: int) -> dict[str, Any]:
    embeds, negative = pipe.encode_prompt(
        prompt=prompt,
        negative_prompt=negative_prompt,
        do_classifier_free_guidance=negative_prompt is not None,
        device=pipe._execution_device,
        max_sequence_length=tokens,
    )
    return {"prompt_embeds": embeds, "negative_prompt_embeds": negative}


# Latent to RGB in [-1, 1] for FLUX.1's VAE, which Z-Image uses too; as leejet/stable-diffusion.cpp
# (MIT) gives them in latent-preview.h.
_FLUX_PREVIEW = PreviewFactors.from_signed(
    [
        (-0.0346, 0.0244, 0.0681),
        (0.0034, 0.0210, 0.0687),
        (0.0275, -0.0668, -0.0433),
        (-0.0174, 0.0160, 0.0617),
        (0.0859, 0.0721, 0.0329),
        (0.0004, 0.0383, 0.0115),
        (0.0405, 0.0861, 0.0915),
        (-0.0236, -0.0185, -0.0259),
        (-0.0245, 0.0250, 0.1180),
        (0.1008, 0.0755, -0.0421),
        (-0.0515, 0.0201, 0.0011),
        (0.0428, -0.0012, -0.0036),
        (0.0817, 0.0765, 0.0749),
        (-0.1264, -0.0522, -0.1103),
        (-0.0280, -0.0881, -0.0499),
        (-0.1262, -0.0982, -0.0778),
    ],
    bias=(-0.0329, -0.0718, -0.0851),
)

FAMILY = Family(
    title="Z-Image",
    pipeline="ZImagePipeline",
    text_encoders=(TextEncoder("tokenizer", "text_encoder", "the text encoder", as_called, chat=True),),
    usual_tokens=256,
    languages="English or Chinese",  # the card: it renders text in both
    guidance_threshold=0,
    encode=_encode,
    # Turbo's, measured on an H200 at 1024² and nine steps (bench/README.md): 149.0 ms a forward. Not
    # measured: the floor, by the number of blocks.
    usual_cost=Cost(forward=0.149, attention=0.14, floor=0.105),
    transformer_tensors=(
        (r"^layers\.0\.(attention|adaLN_modulation\.0)\.", r"^cap_embedder\.", r"^noise_refiner\.0\."),
    ),
    lora_tensors=r"layers[._]\d+[._](attention|feed_forward|adaLN)",
    preview_factors={"flux": _FLUX_PREVIEW},
)
