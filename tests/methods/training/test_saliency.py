"""The largest gradients are found as a sort would find them, and others do not move."""

from __future__ import annotations

import pytest
import torch

from erase.methods.training.saliency import masked, salient


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_the_masks_are_those_of_a_sort_of_all(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = {"a": torch.randn(30, 7, generator=generator), "b": 1e-6 * torch.randn(11, generator=generator)}
    order = sorted((abs(float(v)) for value in sizes.values() for v in value.flatten()), reverse=True)
    least = order[round(share * len(order)) - 1]
    for name, mask in salient(sizes, share).items():
        assert mask.dtype == torch.bool
        assert torch.equal(mask, sizes[name].abs() >= least)


def test_equal_values_are_all_in_and_zeros_never() -> None:
    sizes = {"a": torch.tensor([0.0, -2.0, 2.0, 1.0]), "b": torch.zeros(4)}
    assert salient(sizes, 0.125)["a"].tolist() == [False, True, True, False]
    every = salient(sizes, 1.0)
    assert every["a"].tolist() == [False, True, True, True]
    assert not every["b"].any()


def test_what_is_outside_a_mask_does_not_move_and_the_block_ends() -> None:
    value = torch.ones(3, requires_grad=True)
    mask = {"v": torch.tensor([True, False, True])}
    with masked({"v": value}, mask):
        value.square().sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad is not None
    assert value.grad.tolist() == [2.0, 0.0, 2.0]
    value.grad = None
    value.square().sum().backward()  # type: ignore[no-untyped-call]
    assert value.grad.tolist() == [2.0, 2.0, 2.0]  # type: ignore[attr-defined]
