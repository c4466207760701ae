"""Trains the autoencoder: pictures of 64 x 64 to latents of 8 x 8 x 8 and back.

python scripts/embedded/train_autoencoder.py
"""

from __future__ import annotations

import copy

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import avg_pool2d
from training import PLACES, Stage, average_into, load_icons, options, shifted

LATENTS = 8


def build_autoencoder() -> AutoencoderKL:
    blocks = (16, 32, 64, 96)
    return AutoencoderKL(
        block_out_channels=blocks,
        latent_channels=LATENTS,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
    )


def draw(icons: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """A batch of random icons at random places, [count, 3, 64, 64]."""
    flat = icons.flatten(0, 1)
    which = torch.randint(len(flat), (count,), generator=generator).tolist()
    places = torch.randint(len(PLACES), (count,), generator=generator).tolist()
    return torch.stack([shifted(flat[i], *PLACES[place]) for i, place in zip(which, places, strict=True)])


def edges(pictures: Tensor) -> tuple[Tensor, Tensor]:
    return pictures.diff(dim=-1), pictures.diff(dim=-2)


def reconstruction(output: Tensor, target: Tensor) -> Tensor:
    """L1 on pixels, on their gradients, and on halved and quartered pictures."""
    loss = (output - target).abs().mean()
    loss = loss + sum((a - b).abs().mean() for a, b in zip(edges(output), edges(target), strict=True))
    for size in (2, 4):
        loss = loss + 0.5 * (avg_pool2d(output, size) - avg_pool2d(target, size)).abs().mean()
    return loss


def main() -> None:
    chosen = options(__doc__, steps=8000, batch=8, lr=1e-3)
    icons, model = load_icons(), build_autoencoder().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    stage = Stage("autoencoder", {"model": model, "average": average}, optimizer, chosen.steps, chosen.lr)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(chosen.seed * 1_000_003 + step)
        pictures = draw(icons, chosen.batch, generator)
        posterior = model.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        output = model.decode(posterior.mean + posterior.std * noise).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        pixels = reconstruction(output, pictures)
        return pixels + 2e-3 * kl, {"pixels": pixels.item(), "kl": kl.item()}

    stage.run(loss_of, lambda step: average_into(average, model, step, decay=0.999))


if __name__ == "__main__":
    main()
