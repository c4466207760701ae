"""The problem behind `redirect`, for every lamb at once, against its normal equations and against sums over states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erase.methods.closed_form.ridge import gram, matrix
from erase.methods.closed_form.spectrum import LEAST, MOST, USUAL, Moments, Spectrum, best_share, complement, spectrum
from tests.methods.formulas import WIDTH, states

EYE = torch.eye(WIDTH, dtype=torch.float64)
OLD, NEW, FIXED, KEEPS = states(5, 1), states(5, 2), states(4, 3), states(40, 4)
KEPT = gram(KEEPS) / len(KEEPS)


def solved(pairs: Moments, *, kept: Tensor = KEPT, fixed: Tensor = FIXED, floor: float = 0.01) -> Spectrum:
    found = spectrum(pairs, kept, free=complement(fixed), floor=floor)
    assert found is not None
    return found


@pytest.mark.parametrize("share", [1e-4, 0.01, 1.0])
def test_every_lamb_is_the_minimum_by_its_normal_equations(share: float) -> None:
    found = solved(Moments.of(OLD, NEW))
    H = KEPT + 0.01 * KEPT.trace() / WIDTH * EYE
    system = gram(OLD) + share * float(found.sizes.max()) * H
    bordered = torch.cat([torch.cat([system, FIXED.T], 1), torch.cat([FIXED, FIXED.new_zeros(4, 4)], 1)])
    right = torch.cat([OLD.T @ (NEW - OLD), FIXED.new_zeros(4, WIDTH)])
    expected = torch.linalg.solve(bordered, right)[:WIDTH].T
    up, down = found.factors(share)
    assert float((up @ down - expected).norm()) < 1e-6 * float(expected.norm())


def test_fixed_states_do_not_move_at_all() -> None:
    moved = matrix(solved(Moments.of(OLD, NEW)).factors(1e-3))
    assert (FIXED @ moved.T - FIXED).abs().max() < 1e-10
    assert (OLD @ moved.T - OLD).abs().max() > 1e-2


def test_what_is_left_and_what_is_moved_are_the_sums_over_states() -> None:
    found, other_old, other_new = solved(Moments.of(OLD, NEW)), states(7, 5), states(7, 6)
    change = matrix(found.factors(0.05)) - EYE
    left = (other_old @ change.T - (other_new - other_old)).square().sum()
    moved = (KEEPS @ change.T).square().sum() / len(KEEPS)
    gains = found.gains(torch.tensor([0.05, 0.5], dtype=torch.float64))
    assert float(found.left(gains, Moments.of(other_old, other_new))[0]) == pytest.approx(float(left), rel=1e-9)
    assert float(found.moved(gains, KEPT)[0]) == pytest.approx(float(moved), rel=1e-9)
    assert float(found.moved(gains, KEPT)[1]) < float(moved)


def test_moments_add_up() -> None:
    whole, halves = Moments.of(OLD, NEW), Moments.of(OLD[:2], NEW[:2]) + Moments.of(OLD[2:], NEW[2:])
    assert halves.count == whole.count == 5
    for name in ("old", "cross", "way"):
        assert torch.allclose(getattr(halves, name), getattr(whole, name))
    assert torch.equal((Moments.none(WIDTH) + whole).cross, whole.cross)


def test_no_other_map_that_leaves_as_much_moves_the_keeps_less() -> None:
    pairs = Moments.of(OLD, NEW)
    ours, plain = solved(pairs, floor=1e-6), solved(pairs, kept=EYE)
    left = ours.left(ours.gains(0.1), pairs)
    shares = torch.logspace(-6, 1, 400, dtype=torch.float64)
    same = int((plain.left(plain.gains(shares), pairs) - left).abs().argmin())
    assert ours.moved(ours.gains(0.1), KEPT) < 0.9 * plain.moved(plain.gains(shares), KEPT)[same]


def test_what_is_fixed_may_leave_nothing() -> None:
    assert spectrum(Moments.of(FIXED[:2], NEW[:2]), KEPT, free=complement(FIXED), floor=0.01) is None


def test_the_best_lamb_is_the_one_that_serves_the_other_half() -> None:
    """Two halves that differ by noise: the more noise, the larger the lamb; without any, the least is best."""
    noise = [0.05 * states(5, seed) for seed in (7, 8)]
    chosen = []
    for scale in (0.0, 1.0, 10.0):
        folds = [Moments.of(OLD + scale * extra, NEW + scale * extra.flip(0)) for extra in noise]
        chosen.append(best_share(folds, [KEPT, KEPT], free=complement(FIXED), floor=0.01, balance=0.0))
    assert chosen[0] < 1e-4
    assert chosen[0] < chosen[1] < chosen[2] <= MOST


def test_more_balance_moves_the_keeps_less() -> None:
    folds = [Moments.of(OLD, NEW), Moments.of(OLD + 0.05 * states(5, 7), NEW)]
    shares = [
        best_share(folds, [KEPT, KEPT], free=complement(FIXED), floor=0.01, balance=balance)
        for balance in (0.1, 1.0, 10)
    ]
    assert shares == sorted(shares)
    assert LEAST <= shares[0] < shares[-1]


def test_one_phrasing_alone_takes_the_usual_lamb() -> None:
    folds = [Moments.of(OLD, NEW), Moments.none(WIDTH)]
    assert best_share(folds, [KEPT, KEPT], free=complement(FIXED), floor=0.01, balance=1.0) == USUAL
