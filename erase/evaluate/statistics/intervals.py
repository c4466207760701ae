"""Confidence intervals: Wilson's for a rate, the bootstrap's and Student's for a mean."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
PICKS_AT_ONCE = 2_000_000  # bounds the memory, which is otherwise that of all samples


def wilson(successes: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927); of nothing at all it is 0 .. 1."""
    if count == 0:
        return 0.0, 1.0
    z, rate = NormalDist().inv_cdf(0.5 + confidence / 2), successes / count
    spread = z * (rate * (1 - rate) / count + z * z / (4 * count * count)) ** 0.5
    scale, middle = 1 + z * z / count, rate + z * z / (2 * count)
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def wilson_clustered(held: Sequence[bool], clusters: Sequence[str], confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a rate whose images come in clusters, such as the seeds of one prompt.

    By the effective number of images: rate (1 - rate) over the variance between clusters (Korn & Graubard 1998), from
    the number of clusters to that of images. Where all are alike it is the number of clusters.
    """
    count = len(held)
    if not count:
        return 0.0, 1.0
    rate, sums = sum(held) / count, dict.fromkeys(clusters, 0.0)
    for yes, cluster in zip(held, clusters, strict=True):
        sums[cluster] += yes - rate
    groups = len(sums)
    spread = sum(value**2 for value in sums.values()) / count**2 * groups / max(1, groups - 1)
    effective = rate * (1 - rate) / spread if spread > 0 and 0 < rate < 1 else groups if rate in (0, 1) else count
    size = min(count, max(groups, effective))
    return wilson(rate * size, size, confidence)


def student(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of few independent values (1908); of a single one it is that one."""
    from scipy.stats import t

    mean = fmean(values) if values else float("nan")
    if len(values) < 2:
        return mean, mean
    spread = float(t.ppf(0.5 + confidence / 2, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return mean - spread, mean + spread


def bootstrap_mean(values: Sequence[float], seed: int = 0, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean, the same every time for the same seed."""
    if not values:
        return float("nan"), float("nan")
    sample = np.asarray(values, dtype=np.float64)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled_means(sample, seed), [tail, 1 - tail])
    return float(low), float(high)


def resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """The means of RESAMPLES samples drawn with replacement, a few samples at a time."""
    rng, count = np.random.default_rng(seed), len(values)
    at_once = max(1, PICKS_AT_ONCE // count)
    sizes = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    return np.concatenate([values[rng.integers(count, size=(size, count))].mean(1) for size in sizes])
