"""What a network predicts, in three spaces, and how each becomes another.

A noisy latent is x = alpha x0 + sigma e, of clean latent x0 and noise e. The network predicts one of

    epsilon        e
    v_prediction   alpha e - sigma x0     (Salimans and Ho 2022, section 4, where alpha^2 + sigma^2 = 1)
    flow           e - x0                 (rectified flow, where alpha + sigma = 1)

Once x is given, each is linear in any other, so a combination of predictions whose weights sum to one is the same
combination in every space. Erasure losses aim at such combinations: they need no conversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

Space = Literal["epsilon", "v_prediction", "flow"]
SPACES: tuple[Space, ...] = get_args(Space)


@dataclass(frozen=True)
class NoiseLevel:
    """How much of a noisy latent is clean (`alpha`) and how much noise (`sigma`); they broadcast over latents."""

    alpha: Tensor
    sigma: Tensor

    def noisy(self, clean: Tensor, noise: Tensor) -> Tensor:
        """The noisy latent of a clean one and a noise."""
        return self.alpha * clean + self.sigma * noise


def prediction_of(space: Space, clean: Tensor, noise: Tensor, *, level: NoiseLevel) -> Tensor:
    """What a network that knew both would predict."""
    if space == "epsilon":
        return noise
    if space == "v_prediction":
        return level.alpha * noise - level.sigma * clean
    return noise - clean


def split(space: Space, prediction: Tensor, noisy: Tensor, *, level: NoiseLevel) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that a prediction says a noisy latent is made of."""
    alpha, sigma = level.alpha, level.sigma
    if space == "epsilon":
        return (noisy - sigma * prediction) / alpha, prediction
    if space == "v_prediction":
        total = alpha**2 + sigma**2
        return (alpha * noisy - sigma * prediction) / total, (sigma * noisy + alpha * prediction) / total
    total = alpha + sigma
    return (noisy - sigma * prediction) / total, (noisy + alpha * prediction) / total


def convert(prediction: Tensor, noisy: Tensor, *, level: NoiseLevel, source: Space, target: Space) -> Tensor:
    """The same prediction in another space."""
    clean, noise = split(source, prediction, noisy, level=level)
    return prediction_of(target, clean, noise, level=level)
