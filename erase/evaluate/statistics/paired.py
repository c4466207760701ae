"""Statistics of pairs, before and after: how far a mean moved, and whether a rate changed by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from erase.evaluate.statistics.intervals import bootstrap_mean

FLIPS = 9999  # draws of signs where there are too many to go through them all


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
    moved = [now - was for was, now in zip(before, after, strict=True)]
    value = fmean(moved) if moved else float("nan")
    return Change(value, *bootstrap_mean(moved, seed, confidence), len(moved))


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> Discordance:
    """McNemar's exact test (1947): the two-sided binomial probability of the discordant pairs' split.

    Raises ValueError if the two are not of one length.
    """
    pairs = list(zip(before, after, strict=True))
    lost = sum(was and not now for was, now in pairs)
    gained = sum(now and not was for was, now in pairs)
    return Discordance(lost, gained, two_sided(min(lost, gained), lost + gained))


def two_sided(fewer: int, count: int) -> float:
    """The exact probability of `count` fair throws as uneven as `fewer` heads or more; 1 of no throw."""
    from scipy.stats import binomtest

    return float(binomtest(fewer, count).pvalue) if count else 1.0


def sign_flips(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> float:
    """Fisher's permutation test of pairs (1935): how often a mean change is as far from 0 under signs by chance.

    Exact up to 13 pairs, by `FLIPS` draws beyond, the same every time for the same seed. 1 where nothing moved. Raises
    ValueError if the two are not of one length.
    """
    from scipy.stats import permutation_test

    moved = [now - was for was, now in zip(before, after, strict=True)]
    if len(moved) < 2 or not any(moved):
        return 1.0
    test = permutation_test((moved,), np.mean, permutation_type="samples", n_resamples=FLIPS, vectorized=True, rng=seed)
    return float(test.pvalue)
