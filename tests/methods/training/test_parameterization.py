"""Prediction spaces against their definitions, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from erase.methods.training.parameterization import SPACES, NoiseLevel, Space, convert, prediction_of, split

ANGLE = 0.7


def latents(seed: int) -> Tensor:
    return torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def level_of(space: Space) -> NoiseLevel:
    """A level on the curve that the space's models are trained on."""
    alpha = math.cos(ANGLE)
    sigma = 1 - alpha if space == "flow" else math.sin(ANGLE)
    return NoiseLevel(torch.tensor(alpha, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64))


def test_each_space_is_what_its_paper_says() -> None:
    clean, noise = latents(1), latents(2)
    circle, line = level_of("v_prediction"), level_of("flow")
    assert torch.equal(prediction_of("epsilon", clean, noise, level=circle), noise)
    # v is the derivative of x = cos(phi) x0 + sin(phi) e by phi, u that of x = (1 - s) x0 + s e by s
    step = 1e-5
    there, here = (math.cos(angle) * clean + math.sin(angle) * noise for angle in (ANGLE + step, ANGLE - step))
    v = (there - here) / (2 * step)
    there, here = ((1 - share) * clean + share * noise for share in (line.sigma + step, line.sigma - step))
    u = (there - here) / (2 * step)
    torch.testing.assert_close(prediction_of("v_prediction", clean, noise, level=circle), v, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(prediction_of("flow", clean, noise, level=line), u, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("space", SPACES)
def test_a_true_prediction_splits_into_its_latent_and_noise(space: Space) -> None:
    clean, noise, level = latents(1), latents(2), level_of(space)
    noisy = level.noisy(clean, noise)
    assert not torch.allclose(noisy, clean)
    found = split(space, prediction_of(space, clean, noise, level=level), noisy, level=level)
    torch.testing.assert_close(found, (clean, noise), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("source", SPACES)
@pytest.mark.parametrize("target", SPACES)
def test_converting_any_prediction_there_and_back_gives_it_back(source: Space, target: Space) -> None:
    noisy, predicted, level = latents(3), latents(4), level_of("flow")  # any level: alpha + sigma is 1, not its squares
    there = convert(predicted, noisy, level=level, source=source, target=target)
    back = convert(there, noisy, level=level, source=target, target=source)
    torch.testing.assert_close(back, predicted, rtol=1e-11, atol=1e-11)
    assert torch.allclose(there, predicted) == (source == target)


@pytest.mark.parametrize("space", ["v_prediction", "flow"])
def test_an_erasure_target_is_the_same_in_every_space(space: Space) -> None:
    noisy, empty, prompted, level = latents(3), latents(4), latents(5), level_of("v_prediction")

    def move(prediction: Tensor) -> Tensor:
        return convert(prediction, noisy, level=level, source=space, target="epsilon")

    aimed = move(empty - 1.7 * (prompted - empty))
    torch.testing.assert_close(aimed, move(empty) - 1.7 * (move(prompted) - move(empty)), rtol=1e-11, atol=1e-11)
    assert not torch.allclose(aimed, move(empty))
