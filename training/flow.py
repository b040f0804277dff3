"""The MMDiT and its training by rectified flow, together with the CLIPs.

Sources, all followed as Esser et al. 2024 (SD3, arXiv 2403.03206) combine them: rectified flow
(Liu et al. 2022), logit-normal timesteps (SD3 §3.1), a resolution-independent timestep shift (§5.3.2),
QK-norm (§5.3.2, after Dehghani et al. 2023), dropping captions for classifier-free guidance (Ho &
Salimans 2022), adaLN-Zero initialisation (Peebles & Xie 2022), and an average of the weights (EMA).
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel

from training.captions import misquoted, random_word, sample_scene
from training.recipe import Bucket, Recipe
from training.render import render
from training.schedule import warm_cosine
from training.sprites import Sprites, read_words
from training.text import CLIP_WIDTH, T5_WIDTH, TextStack

SHIFT = 2.0  # of the timesteps, in training; also the default of the saved scheduler
DROP_CAPTION = 0.1
DROP_T5 = 0.08  # so that it draws objects without T5, if no words (SD3 §5.3.3 does the same)
TEXT_BESIDE = 64  # text tokens that go with every picture's own, when batches are sized


def new_transformer() -> SD3Transformer2DModel:
    """8 layers of 3 heads of 48, 12 MB in float16; a ninth layer would pass the budget of 13."""
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,
        num_layers=8,
        attention_head_dim=48,
        num_attention_heads=3,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=144,
        pooled_projection_dim=2 * CLIP_WIDTH,
        out_channels=16,
        pos_embed_max_size=32,  # patches of 16 pixels: sides up to 512
        qk_norm="rms_norm",
    )
    # adaLN-Zero: every block begins as the identity, and the output as zero.
    silent = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        silent += [block.norm1.linear, block.norm1_context.linear]
    for linear in silent:
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return transformer


@dataclass
class Pool:
    """The training pictures of one size, as latents, with their captions' tokens."""

    bucket: Bucket
    latents: torch.Tensor  # [N, 16, H / 8, W / 8] float16, shifted and scaled
    clip_ids: torch.Tensor  # [N, length] int32, with another word than is drawn
    t5_ids: torch.Tensor  # [N, length] int32
    batch: int


@torch.no_grad()
def draw_pool(
    bucket: Bucket,
    recipe: Recipe,
    sprites: Sprites,
    vae: AutoencoderKL,
    text: TextStack,
    rng: random.Random,
    noise: torch.Generator,
) -> Pool:
    """Draws and encodes this size's share of the pictures."""
    device = sprites.objects.device
    words = read_words()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32  # slower on a CPU
    encoder = copy.deepcopy(vae.encoder).to(dtype)
    count = max(2, round(recipe.flow_pictures * bucket.share))
    chunk = max(1, 256 * 256 * 500 // (bucket.width * bucket.height))
    latents, for_clip, for_t5 = [], [], []
    for start in range(0, count, chunk):
        pairs = [sample_scene(sprites.names, words, rng) for _ in range(min(chunk, count - start))]
        pictures = render([scene for scene, _ in pairs], sprites, bucket.width, bucket.height, noise)
        means = [encoder(part.to(dtype)).chunk(2, 1)[0] for part in pictures.split(125)]
        scaled = (torch.cat(means).float() - vae.config.shift_factor) * vae.config.scaling_factor
        latents.append(scaled.half())
        for_t5 += [caption for _, caption in pairs]
        for_clip += [misquoted(said, scene.word, random_word(words, rng)) for scene, said in pairs]
    clip_ids, t5_ids = text.tokenize(for_clip, for_t5)
    tokens = (recipe.flow_batch * (256 + TEXT_BESIDE)) / (bucket.tokens + TEXT_BESIDE)
    batch = max(2, int(tokens) // 8 * 8)
    return Pool(bucket, torch.cat(latents), clip_ids.to(device), t5_ids.to(device), batch)


def logit_normal_timesteps(count: int, device: torch.device) -> torch.Tensor:
    """Timesteps in 0..1 (1 is noise): a sigmoid of a Gaussian, then shifted towards noise."""
    t = torch.sigmoid(torch.randn(count, device=device))
    return SHIFT * t / (1 + (SHIFT - 1) * t)


def flow_loss(
    transformer: torch.nn.Module,
    text: TextStack,
    latents: torch.Tensor,
    clip_ids: torch.Tensor,
    t5_ids: torch.Tensor,
) -> torch.Tensor:
    """Rectified flow: on the straight line from picture to noise, predict the direction.

    x_t = (1 - t) · x_0 + t · noise, and the target is dx_t / dt = noise - x_0.
    """
    batch, device = len(latents), latents.device
    t = logit_normal_timesteps(batch, device)
    noise = torch.randn_like(latents)
    at = t[:, None, None, None]
    noisy = (1 - at) * latents + at * noise
    tokens, pooled = text.encode(clip_ids, t5_ids, torch.rand(batch, device=device) < DROP_T5)
    velocity = transformer(
        hidden_states=noisy,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=t * 1000,
        return_dict=False,
    )[0]
    return F.mse_loss(velocity.float(), noise - latents)


class Average:
    """An exponential moving average of parameters, with a warm-up so that early steps fade fast."""

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.averages = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average and the trained parameters; a second call puts them back."""
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)


@torch.no_grad()
def drop_captions(
    clip_ids: torch.Tensor, t5_ids: torch.Tensor, empty: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts the empty prompt in place of a tenth of the captions, for guidance to lead away from."""
    dropped = torch.rand(len(clip_ids), 1, device=clip_ids.device) < DROP_CAPTION
    return torch.where(dropped, empty[0], clip_ids), torch.where(dropped, empty[1], t5_ids)


def take_step(
    pool: Pool,
    transformer: torch.nn.Module,
    text: TextStack,
    empty: tuple[torch.Tensor, ...],
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
) -> torch.Tensor:
    """One optimisation step on random pictures of one size; returns the loss."""
    device = pool.latents.device
    picks = torch.randint(0, len(pool.latents), (pool.batch,), device=device)
    clip_ids, t5_ids = drop_captions(pool.clip_ids[picks], pool.t5_ids[picks], empty)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        loss = flow_loss(transformer, text, pool.latents[picks].float(), clip_ids, t5_ids)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return loss.detach()


def as_graph(step: Callable[[], torch.Tensor], memory: tuple[int, int]) -> Callable[[], torch.Tensor]:
    """The step recorded once and replayed: a model this small keeps a GPU waiting for Python.

    Random numbers are drawn anew at every replay. All graphs share `memory`, since they take turns.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # compiles and allocates what a recording must not
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=memory):
        loss = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return loss

    return replay


def new_optimizer(parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.AdamW:
    """AdamW; on a GPU its rate lives there too, so that recorded steps see it change."""
    on_gpu = parameters[0].is_cuda
    start = torch.zeros((), device=parameters[0].device) if on_gpu else rate
    options = {"fused": True, "capturable": True} if on_gpu else {}
    return torch.optim.AdamW(parameters, start, betas=(0.9, 0.99), weight_decay=0.01, **options)


def train_flow(
    recipe: Recipe,
    pools: list[Pool],
    transformer: SD3Transformer2DModel,
    text: TextStack,
    checkpoint: Callable[[int], None],
) -> None:
    """Trains transformer and CLIPs in place; leaves the averaged weights in them.

    `checkpoint(step)` is called now and then, with the averaged weights swapped in.
    """
    device = pools[0].latents.device
    parameters = [p for module in [transformer, text.clip_l, text.clip_g] for p in module.parameters()]
    optimizer = new_optimizer(parameters, recipe.flow_rate)
    average = Average(parameters, recipe.ema)
    empty = tuple(ids.to(device) for ids in text.tokenize([""], [""]))
    steps = [partial(take_step, pool, transformer, text, empty, optimizer, parameters) for pool in pools]
    start = time.monotonic()
    if recipe.compile:
        for block in transformer.transformer_blocks:
            block.compile()  # block by block: one compilation serves all of them
        memory = torch.cuda.graph_pool_handle()
        steps = [as_graph(step, memory) for step in steps]
        print(f"flow: steps recorded in {time.monotonic() - start:.0f}s", flush=True)
    order = random.Random(recipe.seed)
    shares = [pool.bucket.share for pool in pools]
    total, counted = torch.zeros((), device=device), 0
    for done in range(1, recipe.flow_steps + 1):
        warm_cosine(optimizer, recipe.flow_rate, done - 1, recipe.flow_steps)
        total += order.choices(steps, shares)[0]()
        average.update()
        counted += 1
        if done % 250 == 0 or done == recipe.flow_steps:
            mean, seconds = total.item() / counted, time.monotonic() - start
            print(f"flow {done} {seconds:.0f}s loss {mean:.4f}", flush=True)
            total, counted = torch.zeros_like(total), 0
        if done % recipe.checkpoint_every == 0 and done < recipe.flow_steps:
            average.swap()
            checkpoint(done)
            average.swap()
    average.swap()
