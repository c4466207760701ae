"""Sampling step by step: its steps are DDIM's, its way back leads to the picture, and new noise has the right size."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from diffusers import DDIMScheduler

from erase.attacks.search.denoising import Walk, asked, inverted, noise_of, times_of, walk
from erase.attacks.search.victim import Side
from tests.attacks.setting import SAMPLER, base


@cache
def side() -> Side:
    return Side.load(base(), None, SAMPLER)


def test_a_walk_is_ddim_by_diffusers_own_scheduler() -> None:
    prompts, noise = ["a cat in noto style", "a naïve house"], noise_of(side(), [1, 2])
    scheduler = DDIMScheduler.from_config(side().pipe.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    times, ask, latents = times_of(side()), asked(side(), prompts, 2), noise
    for now, then in pairwise(times):
        scheduler.timesteps, scheduler.num_inference_steps = torch.tensor([now, then]), len(times) - 1
        here, there = (side().denoiser.level(torch.tensor([time])) for time in (now, then))
        predicted = ask(latents, now)
        clean = (latents - here.sigma * predicted) / here.alpha
        latents = there.alpha * clean + there.sigma * predicted
    assert torch.allclose(walk(side(), noise, Walk(prompts)), latents, atol=1e-4)
    assert torch.allclose(walk(side(), noise, Walk(prompts, eta=[0.0, 0.0], seeds=(5, 6))), latents, atol=1e-4)


def test_two_halves_of_a_walk_are_the_whole() -> None:
    noise = noise_of(side(), [3])
    half = walk(side(), noise, Walk(["a cat"]), last=2)
    assert torch.allclose(walk(side(), half, Walk(["a cat"]), first=2), walk(side(), noise, Walk(["a cat"])), atol=1e-5)


def test_what_is_walked_back_is_drawn_again_and_more_rounds_come_nearer() -> None:
    picture = walk(side(), noise_of(side(), [4]), Walk())
    errors = [float((walk(side(), inverted(side(), picture, rounds=n), Walk()) - picture).norm()) for n in (1, 8)]
    assert errors[1] < errors[0]
    assert errors[1] < 0.2 * float(picture.norm())


def test_new_noise_changes_the_picture_and_its_seed_decides_how() -> None:
    noise = noise_of(side(), [7])
    one, again, other = (
        walk(side(), noise, Walk(["a cat"], eta=[1.0], variance=[1.0], seeds=(seed,))) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert float((one - other).abs().mean()) > 1e-2
