"""Intervals agree with their definitions, computed another way, and with published figures."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from erase.evaluate.statistics.intervals import RESAMPLES, bootstrap_mean, resampled_means, wilson, wilson_clustered

Z = 1.959963984540054  # the normal distribution's 97.5 % point


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (1, 10), (8, 10), (10, 10), (37, 96), (4999, 5100)])
def test_wilsons_ends_are_the_rates_that_the_score_test_just_does_not_reject(successes: int, count: int) -> None:
    # (rate - p)^2 = z^2 p (1 - p) / n is a quadratic in p; its roots are the interval's ends (Wilson 1927).
    rate = successes / count
    roots = np.roots([1 + Z**2 / count, -(2 * rate + Z**2 / count), rate**2])
    np.testing.assert_allclose(wilson(successes, count), sorted(np.clip(roots, 0, 1)), atol=1e-9)


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # 81/263, 15/148 and 0/20 are Newcombe's examples (Statistics in Medicine 1998, table I, method 3).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_newcombes(successes: int, count: int, low: float, high: float) -> None:
    assert wilson(successes, count) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_more_confidence_is_wider_and_more_images_are_narrower() -> None:
    low, high = wilson(8, 10)
    wider, narrower = wilson(8, 10, confidence=0.99), wilson(80, 100)
    assert wider[0] < low < narrower[0] < 0.8 < narrower[1] < high < wider[1]


def test_the_bootstrap_is_the_same_every_time() -> None:
    values = list(np.random.default_rng(3).normal(size=40))
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        low, high = bootstrap_mean(list(rng.normal(2.0, 1.0, 40)))
        covered += low <= 2.0 <= high
    # Three standard errors of 200 draws around a percentile interval's true coverage at n = 40, some 93.5 %.
    assert 0.88 <= covered / 200 <= 0.99


def test_the_bootstraps_width_is_that_of_the_normal_interval_on_many_values() -> None:
    values = np.random.default_rng(1).normal(size=1000)
    low, high = bootstrap_mean(list(values))
    assert high - low == pytest.approx(2 * Z * values.std(ddof=1) / math.sqrt(1000), rel=0.08)


def test_the_bootstraps_memory_does_not_grow_with_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).normal(size=700)
    rng = np.random.default_rng(9)
    at_once = values[rng.integers(700, size=(RESAMPLES, 700))].mean(1)
    monkeypatch.setattr("erase.evaluate.statistics.intervals.PICKS_AT_ONCE", 5000)  # seven samples a time
    assert np.array_equal(resampled_means(values, 9), at_once)
    tracemalloc.start()
    resampled_means(values, 9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.05 * 8 * RESAMPLES * 700


def test_the_bootstrap_of_one_value_is_that_value_and_of_none_is_nothing() -> None:
    assert bootstrap_mean([31.5]) == (31.5, 31.5)
    assert all(math.isnan(end) for end in bootstrap_mean([]))


def test_an_interval_clustered_by_prompt_counts_alike_seeds_once_and_independent_ones_each() -> None:
    prompts = [f"prompt {number}" for number in range(20) for _ in range(5)]
    alike = [number % 5 != 0 for number in range(20) for _ in range(5)]  # all seeds of a prompt agree
    assert wilson_clustered(alike, prompts) == pytest.approx(wilson(16, 20), abs=0.01)
    rng = np.random.default_rng(0)
    wide, narrow = wilson(16, 20), wilson(80, 100)
    low, high = np.mean([wilson_clustered(list(rng.random(100) < 0.8), prompts) for _ in range(50)], axis=0)
    assert high - low < (narrow[1] - narrow[0]) * 1.2 < wide[1] - wide[0]


def test_an_interval_of_no_failure_is_that_of_as_many_images_as_prompts() -> None:
    assert wilson_clustered([True] * 12, ["a", "b", "c"] * 4) == wilson(3, 3)
    assert wilson_clustered([], []) == (0.0, 1.0)
