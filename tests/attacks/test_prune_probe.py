"""Pruning, and the revival of weights that an edit has set to zero."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from erase.attacks.prune_probe import PruneProbe, filled_zeros, has_gaps, pruned, revived
from erase.errors import BadOption
from tests.attacks.setting import attacked


def gappy() -> tuple[Tensor, Tensor]:
    """A matrix of rank 3, and the same with a tenth of its values at zero."""
    generator = torch.Generator().manual_seed(5)
    whole = torch.randn(40, 3, generator=generator) @ torch.randn(3, 50, generator=generator)
    return whole, torch.where(torch.rand(whole.shape, generator=generator) < 0.1, torch.zeros(()), whole)


def test_the_smallest_values_go() -> None:
    value = torch.tensor([[4.0, -1.0, 2.0, -3.0]])
    assert pruned(value, 0.5).tolist() == [[4.0, 0.0, 0.0, -3.0]]
    assert torch.equal(pruned(value, 0.1), value)


def test_zeros_are_filled_with_what_they_were_where_the_rest_says_it() -> None:
    whole, gaps = gappy()
    missing = gaps == 0
    found = revived(gaps, rank=3)
    assert torch.equal(found[~missing], gaps[~missing])
    assert (found - whole)[missing].norm() < 0.1 * whole[missing].norm()


def test_random_values_in_their_place_leave_nothing_to_find() -> None:
    whole, gaps = gappy()
    cured = filled_zeros(gaps, torch.Generator().manual_seed(1))
    assert has_gaps(gaps)
    assert not has_gaps(cured)
    assert torch.equal(cured[gaps != 0], gaps[gaps != 0])
    assert cured[gaps == 0].std() == pytest.approx(float(whole.std()), rel=0.3)


def test_an_edited_model_is_asked_with_fewer_weights(tmp_path: Path) -> None:
    result = attacked(PruneProbe(shares=(0.05, 0.2)), tmp_path, budget=100)
    assert {one.images for one in result.attempts} <= {1, 2}


def test_a_model_without_zeros_has_nothing_to_revive(tmp_path: Path) -> None:
    result = attacked(PruneProbe(revive=True), tmp_path)
    assert result.success.value == result.before.value


def test_shares_of_one_are_refused() -> None:
    with pytest.raises(BadOption, match="between 0 and 1"):
        PruneProbe(shares=(1.0,))
