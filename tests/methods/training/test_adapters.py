"""Low-rank additions compute what their baked weight computes, and leave the network as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from erase.methods.training.adapters import Adapters


def layer(kind: str) -> nn.Linear | nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "linear":
            return nn.Linear(6, 5).double()
        return nn.Conv2d(3, 5, 3, stride=2, padding=1).double()


def adapters(one: nn.Linear | nn.Conv2d) -> Adapters:
    made = Adapters.on({"one": one}, rank=2, alpha=3.0, seed=1)
    for adapter in made.layers.values():
        adapter.up = torch.randn(adapter.up.shape, generator=torch.Generator().manual_seed(2)).double()
        adapter.down = adapter.down.detach().double()
    return made


@pytest.mark.parametrize(("kind", "shape"), [("linear", (4, 7, 6)), ("convolution", (4, 3, 8, 8))])
def test_an_addition_is_that_of_its_baked_weight(kind: str, shape: tuple[int, ...]) -> None:
    one = layer(kind)
    made = adapters(one)
    inputs = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    with made.attached():
        added = one(inputs)
        with made.off():
            frozen = one(inputs)
    assert torch.equal(frozen, one(inputs))
    (low_rank,) = made.low_rank("unet")
    assert low_rank.site == "unet.one.weight"
    one.weight.data += 3.0 / 2 * (made.layers["one"].up @ made.layers["one"].down).view(one.weight.shape)
    torch.testing.assert_close(one(inputs), added, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(frozen, added)
    one.weight.data += low_rank.delta(one.weight) - 1.5 * (made.layers["one"].up @ made.layers["one"].down).view(
        one.weight.shape
    )
    torch.testing.assert_close(one(inputs), added, rtol=1e-10, atol=1e-10)


def test_additions_begin_at_nothing_and_follow_their_seed() -> None:
    one = layer("linear")
    first, again, other = (Adapters.on({"one": one}, rank=2, alpha=1.0, seed=seed).layers["one"] for seed in (0, 0, 1))
    assert not first.up.any()
    assert torch.equal(first.down, again.down)
    assert not torch.equal(first.down, other.down)


def test_a_rank_above_the_layers_own_is_the_layers_own() -> None:
    one = layer("linear")
    made = Adapters.on({"one": one}, rank=100, alpha=10.0, seed=0).layers["one"]
    assert made.up.shape == (5, 5)
    assert made.scale == 10.0 / 5


def test_only_the_additions_are_trained() -> None:
    one = layer("linear").float().requires_grad_(False)
    made = Adapters.on({"one": one}, rank=2, alpha=1.0, seed=0)
    with made.attached():
        one(torch.ones(1, 6)).sum().backward()
    assert set(made.parameters) == {"one.up", "one.down"}
    assert made.parameters["one.up"].grad is not None
    assert one.weight.grad is None
