"""Trains the decoder on, with the encoder and so the latents as they are: sharper pictures from the same UNet.

python scripts/embedded/train_decoder.py
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from train_autoencoder import build_autoencoder, reconstruction
from train_unet import trained
from training import PLACES, Stage, average_into, load_icons, options, shifted

BLUR = 0.05  # noise on the latents, in their own standard deviations: a UNet never hits them exactly


class Decoder(nn.Module):
    """The half of an autoencoder that draws, under the names that the whole has for it."""

    def __init__(self, whole: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = whole.post_quant_conv, whole.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents))


@torch.inference_mode()
def views_and_latents(encoder: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Every icon at every place, [views, 3, 64, 64], and its latents."""
    icons = load_icons().flatten(0, 1)
    views = torch.cat([shifted(icons, down, right) for down, right in PLACES])
    return views, torch.cat([encoder.encode(part).latent_dist.mean for part in views.split(50)])


def main() -> None:
    chosen = options(__doc__, steps=5000, batch=8, lr=7e-4)
    whole = trained("autoencoder", build_autoencoder(), "average").to(memory_format=torch.channels_last)
    views, latents = views_and_latents(whole)
    views, latents = views.clone(), latents.clone()  # out of inference mode
    model = Decoder(whole).train().requires_grad_(True)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=chosen.lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    stage = Stage("decoder", {"model": model, "average": average}, optimizer, chosen.steps, chosen.lr)
    blur = BLUR * latents.std()

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((chosen.seed, step))
        which = rng.integers(len(views), size=chosen.batch)
        noise = torch.from_numpy(rng.standard_normal(latents[which].shape, dtype=np.float32))
        output = model((latents[which] + blur * noise).contiguous(memory_format=torch.channels_last))
        pixels = reconstruction(output, views[which])
        return pixels, {"pixels": pixels.item()}

    stage.run(loss_of, lambda step: average_into(average, model, step, decay=0.999))


if __name__ == "__main__":
    main()
