"""Corrected rates and bounds, against their own derivations in float64 and against simulation."""

from __future__ import annotations

import numpy as np
import pytest

from erase.evaluate.statistics.corrected import Answers, rogan_gladen, zero_bound


def test_the_corrected_rate_solves_the_equation_of_what_is_seen() -> None:
    """seen = rate * sensitivity + (1 - rate) * (1 - specificity)."""
    answers = Answers(200, 180, 400, 20)
    for rate in (0.1, 0.35, 0.8):
        seen = rate * 0.9 + (1 - rate) * 0.05
        found = rogan_gladen(round(1e6 * seen), 10**6, answers)
        assert found is not None
        assert found.value == pytest.approx(rate, abs=1e-5)


def test_a_detector_without_mistakes_changes_nothing_but_the_interval() -> None:
    found = rogan_gladen(30, 100, Answers(10**6, 10**6, 10**6, 0))
    assert found is not None
    assert found.value == pytest.approx(0.3)
    assert found.low < 0.3 < found.high


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.6])
def test_the_interval_holds_the_true_rate_as_often_as_it_says(rate: float) -> None:
    rng, held = np.random.default_rng(7), 0
    for _ in range(2000):
        seen = rng.binomial(120, rate * 0.9 + (1 - rate) * 0.08)
        answers = Answers(200, int(rng.binomial(200, 0.9)), 200, int(rng.binomial(200, 0.08)))
        found = rogan_gladen(int(seen), 120, answers)
        assert found is not None
        held += found.low <= rate <= found.high
    assert held / 2000 >= 0.94


def test_an_interval_that_took_the_detector_for_exact_would_be_too_narrow() -> None:
    few, many = (rogan_gladen(24, 120, Answers(n, round(0.9 * n), n, round(0.08 * n))) for n in (50, 50_000))
    assert few is not None
    assert many is not None
    assert few.high - few.low > 1.2 * (many.high - many.low)


@pytest.mark.parametrize("answers", [Answers(0, 0, 10, 0), Answers(10, 9, 0, 0), Answers(100, 50, 100, 50)])
def test_nothing_is_corrected_by_a_detector_that_tells_nothing(answers: Answers) -> None:
    assert rogan_gladen(5, 10, answers) is None


def test_the_rule_of_three_is_the_exact_bounds_limit() -> None:
    for count in (30, 300, 3000):
        bound = zero_bound(count)
        assert (1 - bound["exact"]) ** count == pytest.approx(0.05)
        assert bound["rule_of_three"] == 3 / count
        assert bound["exact"] < bound["rule_of_three"] < 1.06 * bound["exact"] or count < 100
    assert zero_bound(0) == {"rule_of_three": 1.0, "exact": 1.0}
    assert zero_bound(2)["rule_of_three"] == 1.0
