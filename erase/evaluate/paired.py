"""Statistics of pairs, before and after: how far a mean moved, and whether a rate changed by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from erase.evaluate.intervals import resampled_means


@dataclass(frozen=True)
class Change:
    """The mean of after minus before over `n` pairs, with its interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Discordance:
    """Pairs that changed sides: `lost` were true before and are false after, `gained` the reverse.

    `p` is the probability of a split as uneven as this or more, were both equally likely.
    """

    lost: int
    gained: int
    p: float


def mean_change(before: Sequence[float], after: Sequence[float], *, seed: int = 0, confidence: float = 0.95) -> Change:
    """The change of a mean with the percentile bootstrap over pairs, the same every time for the same seed.

    A pair is drawn whole, so that what both images share (prompt, seed) drops out. Raises ValueError if the two are
    not of one length.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} values before and {len(after)} after; expected pairs.")
    if not before:
        return Change(float("nan"), float("nan"), float("nan"), 0)
    moved = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled_means(moved, seed), [tail, 1 - tail])
    return Change(fmean(moved), float(low), float(high), len(moved))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> Discordance:
    """McNemar's exact test (1947): the two-sided binomial probability of the discordant pairs' split.

    Raises ValueError if the two are not of one length.
    """
    pairs = list(zip(before, after, strict=True))
    lost = sum(was and not now for was, now in pairs)
    gained = sum(now and not was for was, now in pairs)
    return Discordance(lost, gained, two_sided(min(lost, gained), lost + gained))


def two_sided(fewer: int, count: int) -> float:
    """Twice the probability of at most `fewer` heads in `count` fair throws, at most 1; in whole numbers throughout."""
    ways, tail = 1, 0
    for heads in range(fewer + 1):
        tail += ways
        ways = ways * (count - heads) // (heads + 1)
    return min(1.0, 2 * tail / (1 << count))
