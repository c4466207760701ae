"""Attacks on weights: values that are put in for a while, and training that leaves the network as it was."""

from __future__ import annotations

import pytest
import torch

from erase.attacks.search.victim import Side
from erase.attacks.search.weights import Tuning, matrices, picture_loss, replaced_weights
from tests.attacks.setting import SAMPLER, base


@pytest.fixture(scope="module")
def side() -> Side:
    return Side.load(base(), None, SAMPLER)


def test_other_weights_are_there_for_a_while(side: Side) -> None:
    name, value = next(iter(matrices(side).items()))
    before = value.clone()
    with replaced_weights(side.pipe, {name: value * 2}):
        assert torch.equal(matrices(side)[name], before * 2)
    assert torch.equal(matrices(side)[name], before)


@pytest.mark.parametrize("rank", [0, 2])
def test_training_lowers_the_loss_and_leaves_the_network(side: Side, rank: int) -> None:
    before = {name: value.clone() for name, value in matrices(side).items()}
    clean = torch.randn(2, *side.denoiser.shape, generator=torch.Generator().manual_seed(1)) * 3
    loss = picture_loss(side, clean, ["a cat", "a car"], batch=4)

    def measured() -> float:
        with torch.no_grad():
            return loss(torch.Generator().manual_seed(7)).item()

    generator, counted = torch.Generator().manual_seed(3), []
    tuning = Tuning(8, 1e-2 if rank else 1e-3, rank, layers="x")
    values = tuning.values(side, loss, generator=generator, progress=lambda done, total: counted.append((done, total)))
    assert all(torch.equal(value, before[name]) for name, value in matrices(side).items())
    assert not any(one.requires_grad for one in side.denoiser.network.parameters())
    assert counted[-1] == (8, 8)
    first = measured()
    with replaced_weights(side.pipe, values):
        assert measured() < 0.98 * first
