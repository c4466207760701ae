"""The shared ridge problem against an independent per-layer derivation in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erase.methods.closed_form.ridge import compose, gram, matrix, solve, span

WIDTH = 24


def states(count: int, seed: int) -> Tensor:
    return torch.randn(count, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def layer(rows: int, seed: int) -> Tensor:
    return states(rows, seed)


def published(
    weight: Tensor, old: Tensor, new: Tensor, keep: Tensor, *, erase: float, hold: float, lamb: float
) -> Tensor:
    """The published update of one layer, vector by vector: mat1 mat2^-1 (UCE eq. 7 with the official code's scales)."""
    mat1, mat2 = lamb * weight, lamb * torch.eye(weight.shape[1], dtype=torch.float64)
    for before, after in zip(old, new, strict=True):
        mat1 = mat1 + erase * torch.outer(weight @ after, before)
        mat2 = mat2 + erase * torch.outer(before, before)
    for kept in keep:
        mat1 = mat1 + hold * torch.outer(weight @ kept, kept)
        mat2 = mat2 + hold * torch.outer(kept, kept)
    return mat1 @ torch.linalg.inv(mat2)


@pytest.mark.parametrize("pairs", [1, 3, WIDTH + 5])
@pytest.mark.parametrize(("erase", "hold", "lamb"), [(1.0, 1.0, 0.5), (2.0, 0.1, 0.01), (0.3, 0.0, 10.0)])
def test_one_matrix_gives_the_published_weight_of_every_layer(
    pairs: int, erase: float, hold: float, lamb: float
) -> None:
    old, new, keep = states(pairs, 1), states(pairs, 2), states(7, 3)
    up, down = solve(old, new, hold * gram(keep), erase_scale=erase, lamb=lamb)
    for rows, seed in ((8, 4), (40, 5)):
        weight = layer(rows, seed)
        expected = published(weight, old, new, keep, erase=erase, hold=hold, lamb=lamb)
        assert not torch.allclose(expected, weight, rtol=1e-3)
        torch.testing.assert_close(weight + weight @ up @ down, expected, rtol=1e-9, atol=1e-9)


def test_rank_is_at_most_the_number_of_edited_states() -> None:
    up, down = solve(states(3, 1), states(3, 2), gram(states(50, 3)), erase_scale=1.0, lamb=0.5)
    assert up.shape == (WIDTH, 3)
    assert down.shape == (3, WIDTH)
    assert torch.linalg.matrix_rank(up @ down) == 3


def test_exact_states_do_not_move_and_others_do() -> None:
    fixed, old, new = states(4, 9), states(3, 1), states(3, 2)
    up, down = solve(old, new, gram(states(5, 3)), erase_scale=1.0, lamb=0.1, exact=fixed)
    assert (fixed @ (up @ down).T).abs().max() < 1e-12
    assert (old @ (up @ down).T).abs().max() > 0.1


def test_exact_constraint_is_the_limit_of_an_infinite_keep() -> None:
    fixed, old, new, keep = states(4, 9), states(3, 1), states(3, 2), states(5, 3)
    options = {"erase_scale": 1.0, "lamb": 0.1}
    up, down = solve(old, new, gram(keep), exact=fixed, **options)
    soft_up, soft_down = solve(old, new, gram(torch.cat([keep, 1e4 * fixed])), **options)
    torch.testing.assert_close(up @ down, soft_up @ soft_down, rtol=1e-5, atol=1e-6)


def test_more_weight_on_a_keep_moves_it_less() -> None:
    old, new, keep = states(3, 1), states(3, 2), states(30, 3)
    moved = []
    for hold in (0.0, 1.0, 100.0):
        up, down = solve(old, new, hold * gram(keep), erase_scale=1.0, lamb=0.5)
        moved.append((keep @ (up @ down).T).norm().item())
    assert moved[0] > moved[1] > moved[2]


def test_span_has_the_rank_of_its_states() -> None:
    three = states(3, 1)
    basis = span(torch.cat([three, three * 2, three.sum(0, keepdim=True)]))
    assert basis.shape == (WIDTH, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(three @ basis @ basis.T, three)


def test_more_pairs_than_the_width_give_factors_of_the_width() -> None:
    up, down = solve(states(60, 1), states(60, 2), gram(states(5, 3)), erase_scale=1.0, lamb=0.5)
    assert up.shape == down.shape == (WIDTH, WIDTH)
    exactly = up @ down
    assert ((up.float() @ down.float()).double() - exactly).norm() < 1e-6 * exactly.norm()


def test_composed_maps_are_one_after_the_other_on_a_weight() -> None:
    maps = [
        solve(states(pairs, seed), states(pairs, seed + 1), gram(states(5, 3)), erase_scale=1.0, lamb=0.5)
        for pairs, seed in ((3, 10), (7, 20), (40, 30))
    ]
    weight, composed = layer(8, 4), maps[0]
    expected = weight @ matrix(maps[0])
    for step in maps[1:]:
        composed, expected = compose(composed, step), expected @ matrix(step)
        torch.testing.assert_close(weight @ matrix(composed), expected, rtol=1e-10, atol=1e-10)
    assert compose(maps[0], maps[1])[0].shape[1] == 10
    assert composed[0].shape[1] == WIDTH
