"""Memory plans: the few ways in which a model is kept in memory while it draws, from the fastest to the one
that needs least. Which one a machine gets follows from three numbers: what the model weighs, what its GPU
has, and what its host has. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.catalog.spec import Needs, PlanName

FOUR_BITS = 0.29
"""A transformer in NF4 against 16 bits: 4 bits a weight and absmax for each 64; norms, biases and position
embeddings stay. Measured: SD3.5 Large 0.26, Medium 0.32."""
EIGHT_BITS = 0.63
"""T5 in LLM.int8 against 16 bits: transformers (5.23) leaves each block's `wo`, a quarter, in 16. Measured:
0.62."""
TILED = 0.45
"""What drawing adds where the VAE decodes tile by tile, against the whole picture at once (measured: 1.4 of
3.1 GB)."""
BLOCKS = 1.5
"""GB on the GPU while blocks are streamed: the one that computes, the next one, and what stands outside
blocks (SD3.5 Large: a block is 0.4 GB in 16 bits)."""


@dataclass(frozen=True)
class Plan:
    """One way to keep a model in memory while it draws.

    name: as settings and models.yaml write it. words: what it does, for people, to follow “with”. staged:
    the text encoders and the transformer take turns on the GPU, alone there. streamed: transformer and
    largest text encoder stay in host memory; their blocks visit the GPU one by one. quantized: the
    transformer in 4 bits, the largest text encoder in 8. without_t5: that encoder isn't loaded at all.
    tiled: the VAE decodes tile by tile.
    warning: how its pictures differ from those of 16 bits; empty where they are the same to within rounding.
    """

    name: PlanName
    words: str
    staged: bool = False
    streamed: bool = False
    tiled: bool = False
    quantized: bool = False
    without_t5: bool = False
    warning: str = ""

    def gpu_memory(self, needs: Needs) -> float:
        """GB on the GPU at the plan's peak, for a picture of the model's default size."""
        transformer, large = needs.transformer, needs.large_text_encoder
        if self.quantized:
            transformer, large = transformer * FOUR_BITS, large * EIGHT_BITS
        if self.without_t5:
            large = 0
        drawing = needs.drawing * (TILED if self.tiled else 1)
        if self.streamed:
            return BLOCKS + max(needs.text_encoders, drawing)
        encoders = needs.text_encoders + large
        if self.staged:
            return max(encoders, transformer + drawing)
        return encoders + transformer + drawing

    def host_memory(self, needs: Needs) -> float:
        """GB of host memory that weights occupy when they are not on the GPU."""
        return needs.weights if self.staged or self.streamed else 0


PLANS = (
    Plan("resident", "everything on the GPU"),
    Plan("encoders-off", "text encoders and transformer taking turns on the GPU", staged=True),
    Plan("offload", "blocks visiting the GPU one by one", staged=True, streamed=True),
    Plan(
        "quantized",
        "the transformer in 4 bits, the largest text encoder in 8",
        quantized=True,
        tiled=True,
        warning="Drawn with a transformer in 4 bits and its largest text encoder in 8, to fit this GPU: not "
        "the picture that 16 bits give.",
    ),
    Plan(
        "without-t5",
        "the transformer in 4 bits, and no T5",
        quantized=True,
        tiled=True,
        without_t5=True,
        warning="Drawn with a transformer in 4 bits and without T5, to fit this GPU: words in the picture "
        "and long prompts suffer.",
    ),
)
_BY_NAME = {plan.name: plan for plan in PLANS}
RESIDENT = PLANS[0]


def plan_named(name: PlanName) -> Plan:
    return _BY_NAME[name]


def fitting(needs: Needs, gpu_memory: float, host_memory: float) -> Iterator[Plan]:
    """The plans with which a model draws on a CUDA GPU, the fastest first.

    Args:
        gpu_memory, host_memory: GB that weights and drawing may take there.
    """
    for plan in PLANS:
        if plan.without_t5 and not needs.t5:
            continue
        if plan.gpu_memory(needs) <= gpu_memory and plan.host_memory(needs) <= host_memory:
            yield plan


def cheaper(plan: Plan, needs: Needs, host_memory: float) -> Plan | None:
    """The next plan that needs less of the GPU than this one did, for which the host has room; None: there
    is none. Of a model whose needs are not known, the next one in order."""
    for other in PLANS[PLANS.index(plan) + 1 :]:
        less = not needs.known or other.gpu_memory(needs) < plan.gpu_memory(needs)
        if less and other.host_memory(needs) <= host_memory and (needs.t5 or not other.without_t5):
            return other
    return None


def least(needs: Needs, host_memory: float) -> float:
    """GB of GPU memory below which no plan draws, where the host has so much."""
    return min(
        plan.gpu_memory(needs)
        for plan in PLANS
        if plan.host_memory(needs) <= host_memory and (needs.t5 or not plan.without_t5)
    )
