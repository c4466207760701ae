"""Sampling step by step, from any noisy latent, at any step: what attacks on latents do and no pipeline offers.

With alpha and sigma of a time t and of the next one s, and the clean latent z and the noise e that a prediction at x_t
says x_t is made of, a step of DDIM (Song et al. 2021, eq. 12) is

    x_s = alpha_s z + sqrt(sigma_s^2 - w^2) e + w n,    w = eta (sigma_s / sigma_t) sqrt(1 - (alpha_t / alpha_s)^2)

with new noise n.

A guard that acts while a pipeline samples has no part in it: whoever has the weights need not call it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from erase.attacks.search.victim import Side
from erase.methods.training.parameterization import NoiseLevel, split
from erase.models import Condition


@dataclass(frozen=True)
class Walk:
    """How latents are walked along a model's times.

    `prompts`: one each, or None for the empty prompt without guidance. `eta`: of DDIM, by row, as `variance` is, by
    which new noise is multiplied. `blend` changes a latent that has reached a time.
    """

    prompts: Sequence[str] | None = None
    eta: Sequence[float] | None = None
    variance: Sequence[float] | None = None
    seeds: Sequence[int] = ()
    blend: Callable[[Tensor, NoiseLevel], Tensor] | None = None


def times_of(side: Side) -> list[int]:
    """The times of a sampling by the model's own settings, from noise to picture, with 0 at the end."""
    return [int(time) for time in side.denoiser.sampler("ddim", side.sampler.steps).timesteps] + [0]


def noise_of(side: Side, seeds: Sequence[int]) -> Tensor:
    """The noise of each seed, [seeds, ...], of which its pipeline's own image begins."""
    return torch.stack([side.denoiser.noise(seed) for seed in seeds])


@torch.no_grad()
def walk(side: Side, latents: Tensor, how: Walk, *, first: int = 0, last: int | None = None) -> Tensor:
    """Latents from the `first` time of a sampling to its `last`, [rows, ...]."""
    times = times_of(side)[first : None if last is None else last + 1]
    generators = [torch.Generator().manual_seed(seed) for seed in how.seeds]
    ask = asked(side, how.prompts, len(latents))
    for now, then in pairwise(times):
        here, there = _level(side, now), _level(side, then)
        clean, noise = split(side.denoiser.space, ask(latents, now), latents, level=here)
        latents = there.alpha * clean + there.sigma * noise
        if how.eta is not None and then:
            ratio = (1 - (here.alpha / there.alpha) ** 2).clamp(min=0).sqrt() * there.sigma / here.sigma
            width = (torch.tensor(how.eta).view(-1, 1, 1, 1) * ratio).clamp(max=float(there.sigma))
            fresh = torch.stack([torch.randn(latents.shape[1:], generator=one) for one in generators])
            scale = torch.tensor(how.variance or [1.0] * len(latents)).view(-1, 1, 1, 1)
            kept = (there.sigma**2 - width**2).sqrt()
            latents = there.alpha * clean + kept * noise + scale * width * fresh
        if how.blend is not None:
            latents = how.blend(latents, there)
    return latents


@torch.no_grad()
def inverted(side: Side, latents: Tensor, *, rounds: int) -> Tensor:
    """The noise from which the empty prompt's sampling comes to these clean latents, [rows, ...].

    Each step's way back is a fixed point, x_t = (alpha_t / alpha_s)(x_s - sigma_s e(x_t, t)) + sigma_t e(x_t, t),
    found in so many rounds. A round is an evaluation.
    """
    times, ask = times_of(side)[::-1], asked(side, None, len(latents))
    for now, then in pairwise(times):  # from picture to noise
        here, there = _level(side, now), _level(side, then)
        back = latents
        for _ in range(rounds):
            _, noise = split(side.denoiser.space, ask(back, then), back, level=there)
            back = there.alpha / here.alpha * (latents - here.sigma * noise) + there.sigma * noise
        latents = back
    return latents


def asked(side: Side, prompts: Sequence[str] | None, count: int) -> Callable[[Tensor, int], Tensor]:
    """What a model predicts at a time, guided towards prompts as its sampler says, or for the empty prompt alone."""
    conditions, sampler = side.conditions(prompts or []), side.sampler
    scale = sampler.true_guidance if side.model.true_cfg else sampler.guidance
    empty = Condition.stack([conditions[None]] * count)
    given = Condition.stack([conditions[prompt] for prompt in prompts]) if prompts is not None else empty

    def predict(latents: Tensor, time: int) -> Tensor:
        times = torch.full((len(latents),), time)
        prompted = side.denoiser.predict(latents, times, given)
        if prompts is None or scale <= 1:
            return prompted
        plain = side.denoiser.predict(latents, times, empty)
        return plain + scale * (prompted - plain)

    return predict


def _level(side: Side, time: int) -> NoiseLevel:
    return side.denoiser.level(torch.tensor([time]))
