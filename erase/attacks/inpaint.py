"""Inpainting: a part of a picture of the target is hidden, and the edited model fills it in by the plain prompt.

Lu et al., "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025. At each step what is visible is put back,
with the noise of that step. The control fills the same part of the same picture and is asked for what the target
becomes: the judge may see the target in the visible part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.attacks.search.attack import Setting
from erase.attacks.search.denoising import Walk, noise_of, walk
from erase.attacks.search.latents import LatentAttack, Reference
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.methods.training.parameterization import NoiseLevel
from erase.options import Inner


@dataclass(frozen=True)
class Inpaint(LatentAttack):
    """Options of inpainting.

    `hidden`: share of the picture's width and height that is filled in, around its middle. `reference`: what is asked
    for, the target or as a control other.
    """

    hidden: Inner = 0.75
    reference: Reference = "target"

    def latents(self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]) -> Tensor:
        edited = victim.edited
        picture = victim.base.latents([case.row for case in cases])
        noise, hidden = noise_of(edited, seeds), _middle(picture, self.hidden)

        def blend(latents: Tensor, level: NoiseLevel) -> Tensor:
            return torch.where(hidden, latents, level.noisy(picture, noise))

        return walk(edited, noise, Walk(self.asked(victim, cases), blend=blend))


def _middle(latents: Tensor, share: float) -> Tensor:
    """Which places of a latent lie in its middle, [1, 1, height, width]."""
    sides = []
    for size in latents.shape[-2:]:
        count = max(1, round(share * size))
        first = (size - count) // 2
        sides.append((torch.arange(size) >= first) & (torch.arange(size) < first + count))
    return (sides[0][:, None] & sides[1])[None, None]
