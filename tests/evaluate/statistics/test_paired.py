"""Paired statistics against derivations of their own: enumeration for McNemar, the normal law for the bootstrap."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest

from erase.evaluate.statistics.intervals import wilson
from erase.evaluate.statistics.paired import mcnemar, mean_change, sign_flips, two_sided


def enumerated(lost: int, gained: int) -> Fraction:
    """The same probability by looking at every outcome of the discordant pairs."""
    count, uneven = lost + gained, abs(lost - gained)
    outcomes = list(product((0, 1), repeat=count))
    as_uneven = [one for one in outcomes if abs(count - 2 * sum(one)) >= uneven]
    return Fraction(len(as_uneven), len(outcomes))


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (3, 3), (5, 1), (0, 8), (9, 2), (2, 9)])
def test_mcnemar_is_the_enumerated_probability(lost: int, gained: int) -> None:
    before = [True] * lost + [False] * gained + [True, True, False]
    after = [False] * lost + [True] * gained + [True, True, False]
    found = mcnemar(before, after)
    assert (found.lost, found.gained) == (lost, gained)
    assert found.p == pytest.approx(float(enumerated(lost, gained)), abs=1e-12)


def test_pairs_that_agree_do_not_move_mcnemar() -> None:
    few = mcnemar([True] * 6 + [False], [False] * 6 + [True])
    many = mcnemar([True] * 6 + [False] + [True] * 500, [False] * 6 + [True] + [True] * 500)
    assert few.p == many.p


def test_the_binomial_tail_holds_for_tens_of_thousands_of_pairs() -> None:
    count, fewer = 20_000, 9_800
    # the normal law with continuity correction, to which the binomial converges
    normal = 2 * NormalDist(count / 2, math.sqrt(count) / 2).cdf(fewer + 0.5)
    assert two_sided(fewer, count) == pytest.approx(normal, rel=1e-3)


def test_the_probability_of_a_mean_change_is_that_of_all_signs_gone_through() -> None:
    moved = [0.3, 1.1, -0.2, 0.8, 0.5, 0.9]
    means = [
        abs(sum(sign * value for sign, value in zip(signs, moved, strict=True))) for signs in product((1, -1), repeat=6)
    ]
    as_far = sum(mean >= abs(sum(moved)) - 1e-12 for mean in means) / len(means)
    assert sign_flips([0.0] * 6, moved) == pytest.approx(as_far, abs=1e-12)
    assert sign_flips([1.0] * 6, [1.0] * 6) == 1.0


def test_two_pairs_are_never_more_than_chance_by_the_signs_of_their_change() -> None:
    assert sign_flips([0.0, 0.0], [5.0, 6.0]) == 0.5


def test_the_change_of_a_mean_is_exact_and_its_interval_that_of_the_normal_law() -> None:
    rng = np.random.default_rng(7)
    before = rng.normal(30, 8, size=400)
    after = before - 1.5 + rng.normal(0, 1, size=400)
    change = mean_change(list(before), list(after))
    moved = after - before
    spread = 1.959964 * moved.std(ddof=1) / math.sqrt(400)
    assert change.value == pytest.approx(moved.mean(), abs=1e-12)
    assert change.low == pytest.approx(moved.mean() - spread, abs=0.15 * spread)
    assert change.high == pytest.approx(moved.mean() + spread, abs=0.15 * spread)
    assert change.n == 400


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(30, 8, size=200)
    after = before - 1 + rng.normal(0, 0.5, size=200)
    paired = mean_change(list(before), list(after))
    shuffled = mean_change(list(rng.permutation(before)), list(after))
    assert paired.high - paired.low < 0.2 * (shuffled.high - shuffled.low)


def test_the_same_seed_gives_the_same_interval_and_another_a_close_one() -> None:
    before, after = [float(one % 7) for one in range(90)], [float(one % 5) for one in range(90)]
    first, again, other = (mean_change(before, after, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.low == pytest.approx(other.low, abs=0.2)


def test_the_bootstrap_of_many_pairs_is_drawn_in_parts_and_keeps_its_width() -> None:
    rng = np.random.default_rng(0)
    moved = rng.normal(0, 1, size=3000)  # more than are drawn at once
    change = mean_change([0.0] * 3000, list(moved))
    assert change.high - change.low == pytest.approx(2 * 1.959964 / math.sqrt(3000), rel=0.15)


def test_no_pairs_give_no_number() -> None:
    change = mean_change([], [])
    assert math.isnan(change.value)
    assert change.n == 0


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        mean_change([1.0], [1.0, 2.0])
    with pytest.raises(ValueError):
        mcnemar([True], [True, False])


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (3, 10), (10, 10), (81, 90), (1, 1)])
def test_wilsons_bounds_are_the_roots_of_its_quadratic(successes: int, count: int) -> None:
    """The bounds are those p for which (rate - p)^2 = z^2 p (1 - p) / n; checked by bisection of that equation."""
    z, rate = 1.959963984540054, successes / count

    def excess(p: float) -> float:
        return (rate - p) ** 2 - z * z * p * (1 - p) / count

    def root(outside: float, inside: float) -> float:
        for _ in range(200):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if excess(middle) > 0 else (outside, middle)
        return (outside + inside) / 2

    low, high = wilson(successes, count)
    assert low == pytest.approx(0.0 if successes == 0 else root(0.0, rate), abs=1e-9)
    assert high == pytest.approx(1.0 if successes == count else root(1.0, rate), abs=1e-9)
