"""Confidence intervals: Wilson's for a rate, the bootstrap's for a mean."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 2000


def wilson(successes: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927); of nothing at all it is 0 .. 1."""
    if count == 0:
        return 0.0, 1.0
    z, rate = NormalDist().inv_cdf(0.5 + confidence / 2), successes / count
    spread = z * (rate * (1 - rate) / count + z * z / (4 * count * count)) ** 0.5
    scale, middle = 1 + z * z / count, rate + z * z / (2 * count)
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def bootstrap_mean(values: Sequence[float], seed: int = 0, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean, the same every time for the same seed."""
    if not values:
        return float("nan"), float("nan")
    sample = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(len(sample), size=(RESAMPLES, len(sample)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(sample[picks].mean(1), [tail, 1 - tail])
    return float(low), float(high)
