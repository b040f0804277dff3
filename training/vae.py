"""The autoencoder: 16 latent channels at an eighth of the picture's side, as in SD3, but 2.3 M
parameters instead of 84 M. Trained to give pictures back, with no adversarial or perceptual loss:
flat colours and sharp edges need neither.

Sources: Kingma & Welling 2013 (VAE); Rombach et al. 2022 (latent diffusion, small KL weight);
Esser et al. 2024 (16 channels; latents shifted and scaled to mean 0 and deviation 1).
"""

from __future__ import annotations

import random
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from training.captions import sample_scene
from training.recipe import Recipe
from training.render import render
from training.schedule import warm_cosine
from training.sprites import Sprites, read_words

KL_WEIGHT = 2e-3  # keeps latents near a unit Gaussian and smooth, and blurs nothing visible
SIDE = 256


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=16,
        sample_size=SIDE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def tiles(pictures: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Pictures of any size as 256 × 256: smaller ones four to a tile, larger ones cropped.

    So one compiled shape teaches every scale at which letters and objects are drawn.
    """
    side = pictures.shape[-1]
    if side == SIDE // 2:
        rows = torch.cat([pictures[0::2], pictures[1::2]], 3)
        return torch.cat([rows[0::2], rows[1::2]], 2)
    if side > SIDE:
        x, y = torch.randint(0, side - SIDE + 1, (2,), generator=rng).tolist()
        return pictures[:, :, y : y + SIDE, x : x + SIDE]
    return pictures


def draw_pool(recipe: Recipe, sprites: Sprites, chunk: int = 400) -> torch.Tensor:
    """About `recipe.vae_pictures` pictures at three scales: [N, 3, 256, 256] uint8."""
    rng = random.Random(recipe.seed)
    crops = torch.Generator().manual_seed(recipe.seed)
    noise = torch.Generator(sprites.objects.device).manual_seed(recipe.seed)
    words = read_words()
    chunk = min(chunk, recipe.vae_pictures)
    pool, count, turn = [], 0, 0
    while count < recipe.vae_pictures:
        side = (256, 512, 256, 128)[turn % 4]
        scenes = [sample_scene(sprites.names, words, rng)[0] for _ in range(chunk)]
        drawn = tiles(render(scenes, sprites, side, side, noise), crops)
        pool.append(((drawn + 1) * 127.5).round().byte())
        count, turn = count + len(drawn), turn + 1
    return torch.cat(pool)


def edges(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences between neighbours, across and down."""
    return pictures[..., 1:] - pictures[..., :-1], pictures[..., 1:, :] - pictures[..., :-1, :]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 on pixels, on edges (letters are nothing but edges) and on 4 × 4 means (flat colours)."""
    loss = F.l1_loss(output, target) + F.l1_loss(F.avg_pool2d(output, 4), F.avg_pool2d(target, 4))
    return loss + sum(F.l1_loss(a, b) for a, b in zip(edges(output), edges(target), strict=True))


def psnr(output: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of pictures in -1..1."""
    error = (output.clamp(-1, 1) - target).float().square().mean()
    return float(10 * torch.log10(4 / error))


def train_vae(recipe: Recipe, sprites: Sprites) -> AutoencoderKL:
    device = sprites.objects.device
    torch.backends.cudnn.benchmark = True  # one shape throughout: worth finding its best kernels
    pool = draw_pool(recipe, sprites)
    vae = new_vae().to(device, memory_format=torch.channels_last)
    encode, decode = vae.encoder, vae.decoder
    if recipe.compile:
        encode, decode = torch.compile(encode), torch.compile(decode)
    optimizer = torch.optim.AdamW(vae.parameters(), recipe.vae_rate, betas=(0.9, 0.99), weight_decay=0)
    start = time.monotonic()
    for step in range(recipe.vae_steps):
        warm_cosine(optimizer, recipe.vae_rate, step, recipe.vae_steps)
        picks = torch.randint(0, len(pool), (recipe.vae_batch,), device=device)
        target = (pool[picks].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mean, log_variance = encode(target).float().chunk(2, 1)
            log_variance = log_variance.clamp(-20, 10)
            latents = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
            output = decode(latents)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = reconstruction_loss(output.float(), target) + KL_WEIGHT * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 250 == 0 or step == recipe.vae_steps - 1:
            seconds = time.monotonic() - start
            print(f"vae {step} {seconds:.0f}s loss {loss.item():.4f} kl {kl.item():.2f}", flush=True)
    torch.backends.cudnn.benchmark = False
    vae.eval().requires_grad_(False)
    measure(vae, pool[:512])
    return vae


@torch.no_grad()
def measure(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Notes the latents' mean and deviation in the VAE's config, and prints what it loses."""
    targets = [chunk.float() / 127.5 - 1 for chunk in pictures.split(32)]
    means = [vae.encode(target).latent_dist.mean for target in targets]
    latents = torch.cat(means)
    shift, scale = latents.mean().item(), 1 / latents.std().item()
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    outputs = torch.cat([vae.decode(mean).sample for mean in means])
    figure = psnr(outputs, torch.cat(targets))
    print(f"vae PSNR {figure:.2f} dB, latents shift {shift:.4f} scale {scale:.4f}", flush=True)
