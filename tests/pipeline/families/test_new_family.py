"""A family that Stepwise doesn't know is one description, registered under a name: a model of it is then read
from models.yaml, drawn with previews and guidance, and spoken of as any other. Here it is a tiny AuraFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
)
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from api.mcp.tools import tools
from pipeline.engine import Engine
from pipeline.families import FAMILIES
from pipeline.families.family import Cost, Family, PreviewFactors, TextEncoder, as_called
from tests.support.tiny import SKETCH, catalogue, draw, entry, pixels

SIZE = {"width": 64, "height": 64}


def encode(pipe: Any, prompt: str, negative_prompt: str | None, tokens: int) -> dict[str, Any]:
    embeds, mask, negative, negative_mask = pipe.encode_prompt(
        prompt=prompt,
        negative_prompt=negative_prompt,
        do_classifier_free_guidance=negative_prompt is not None,
        device=pipe._execution_device,
        max_sequence_length=tokens,
    )
    return {
        "prompt_embeds": embeds,
        "prompt_attention_mask": mask,
        "negative_prompt_embeds": negative,
        "negative_prompt_attention_mask": negative_mask,
    }


AURAFLOW = Family(
    title="AuraFlow",
    pipeline="AuraFlowPipeline",
    text_encoders=(TextEncoder("tokenizer", "text_encoder", "the text encoder", as_called),),
    usual_tokens=16,
    languages="German",
    guidance_threshold=1,
    encode=encode,
    usual_cost=Cost(forward=1, attention=0, floor=0),
    transformer_tensors=((r"^joint_transformer_blocks\.0\.",),),
    lora_tensors="single_transformer_blocks",
    preview_factors={
        "aura": PreviewFactors(
            factors=[(0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1), (0, 0, 0)], bias=(0.5, 0.5, 0.5)
        )
    },
)


def tiny_auraflow(folder: Path) -> Path:
    """A random AuraFlow pipeline under `folder`, with one of sketch's tokenizers and 4 latent channels."""
    torch.manual_seed(0)
    tokenizer = T5Tokenizer.from_pretrained(SKETCH / "tokenizer_3")
    encoder = UMT5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(encoder),
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=64,
        ),
        transformer=AuraFlowTransformer2DModel(
            sample_size=8,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pos_embed_max_size=256,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def aura(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("aura")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "auraflow", AURAFLOW)
        yield Engine(catalogue(folder, entry(tiny_auraflow(folder / "a"), family="auraflow", preview="aura")))


def test_a_model_of_a_new_family_draws_with_a_preview_at_every_step_it_shows(aura: Engine) -> None:
    events = list(aura.start(aura.check({"prompt": "a fox", "steps": 6, **SIZE})).events())
    assert events[-1].phase == "finished", events[-1].error
    assert pixels(events[-1].images[0]).shape == (64, 64, 3)
    shown = [event for event in events if event.phase == "denoising" and event.step]
    assert shown
    assert all(event.preview for event in shown)


def test_a_new_family_says_from_which_guidance_on_a_negative_prompt_is_read(aura: Engine) -> None:
    def picture(**values: Any) -> Any:
        return draw(aura, model="tiny", **SIZE, **values)

    plain, other = picture(guidance=3), picture(guidance=3, negative_prompt="blue sky")
    assert (pixels(plain.images[0]) != pixels(other.images[0])).any()
    ignored = picture(guidance=1, negative_prompt="blue sky")
    assert ignored.warnings == ("The negative prompt does nothing at guidance 1: Tiny reads it above 1.",)


def test_a_new_familys_encoder_is_given_its_own_usual_length(aura: Engine) -> None:
    lengths: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        real = AuraFlowPipeline.encode_prompt

        def watched(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            lengths.append(kwargs["max_sequence_length"])
            return real(pipe, *args, **kwargs)

        patch.setattr(AuraFlowPipeline, "encode_prompt", watched)
        draw(aura, model="tiny", **SIZE, prompt="a hen")
    assert lengths[0] == AURAFLOW.usual_tokens


def test_a_language_model_is_told_how_the_new_family_reads(aura: Engine) -> None:
    parameters = tools(aura)[0].inputSchema["properties"]
    assert " In German." in parameters["prompt"]["description"]
    assert parameters["negative_prompt"]["description"].endswith("Guidance is on above 1.")
