"""Distances between two sets of images, of features that a local network gives: KID and CMMD.

All are computed in float64 and in blocks, so that memory grows with the block and not with the square of the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from erase.errors import ScoreFailed
from erase.evaluate.statistics.paired import Change

Matrix = NDArray[np.float64]
Kernel = Callable[[Matrix, Matrix], Matrix]

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
BLOCK = 1024  # rows


def kid(one: ArrayLike, other: ArrayLike, *, subset: int = 1000, subsets: int = 100, seed: int = 0) -> Change:
    """Kernel inception distance (Binkowski et al. 2018): mean and 95 % range of the unbiased MMD^2 over subsets.

    The kernel is (x.y / d + 1)^3. `subset` images are drawn a side without replacement, all of them where there are
    fewer; it may be negative near 0. Raises ScoreFailed on sets that cannot be compared.
    """
    left, right = _features(one, other, fewest=2)
    rng, size = np.random.default_rng(seed), min(subset, len(left), len(right))
    width = left.shape[1]

    def cubic(x: Matrix, y: Matrix) -> Matrix:
        return np.asarray((x @ y.T / width + 1.0) ** 3)

    values = [
        unbiased_mmd(left[rng.permutation(len(left))[:size]], right[rng.permutation(len(right))[:size]], cubic)
        for _ in range(subsets)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    return Change(float(np.mean(values)), float(low), float(high), size)


def cmmd(one: ArrayLike, other: ArrayLike) -> float:
    """CLIP maximum mean discrepancy (Jayasumana et al. 2024): 1000 times the biased MMD^2 of unit CLIP vectors.

    The kernel is Gaussian with sigma 10; published figures use ViT-L/14 at 336 pixels. Raises ScoreFailed on sets that
    cannot be compared.
    """
    left, right = (_unit(part) for part in _features(one, other, fewest=1))

    def gaussian(x: Matrix, y: Matrix) -> Matrix:
        squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :] - 2.0 * x @ y.T
        return np.asarray(np.exp(-np.maximum(squares, 0.0) / (2.0 * CMMD_SIGMA**2)))

    within = _total(left, left, gaussian) / len(left) ** 2 + _total(right, right, gaussian) / len(right) ** 2
    return CMMD_SCALE * (within - 2.0 * _total(left, right, gaussian) / (len(left) * len(right)))


def unbiased_mmd(left: Matrix, right: Matrix, kernel: Kernel) -> float:
    """MMD^2 without the diagonals (Gretton et al. 2012, eq. 3), of sets of one size or two."""
    m, n = len(left), len(right)
    same = (_total(left, left, kernel) - _diagonal(left, kernel)) / (m * (m - 1))
    same += (_total(right, right, kernel) - _diagonal(right, kernel)) / (n * (n - 1))
    return same - 2.0 * _total(left, right, kernel) / (m * n)


def _features(one: ArrayLike, other: ArrayLike, *, fewest: int) -> tuple[Matrix, Matrix]:
    """Both sets, [images, width] each; raises ScoreFailed if they are none, not finite or not of one width."""
    left, right = (np.asarray(part, dtype=np.float64) for part in (one, other))
    for part in (left, right):
        if part.ndim != 2 or len(part) < fewest:
            raise ScoreFailed(
                f"features are of shape {part.shape}; expected [images, width] of {fewest} images or more."
            )
        if not np.isfinite(part).all():
            raise ScoreFailed("features hold NaN or infinite values; the extractor has failed on an image.")
    if left.shape[1] != right.shape[1]:
        raise ScoreFailed(f"features are {left.shape[1]} and {right.shape[1]} wide; take one extractor for both sets.")
    return left, right


def _unit(part: Matrix) -> Matrix:
    return np.asarray(part / np.linalg.norm(part, axis=1, keepdims=True))


def _blocks(part: Matrix) -> Iterator[Matrix]:
    for start in range(0, len(part), BLOCK):
        yield part[start : start + BLOCK]


def _total(left: Matrix, right: Matrix, kernel: Kernel) -> float:
    """The kernel's sum over all pairs, block by block."""
    return float(sum(kernel(x, y).sum() for x in _blocks(left) for y in _blocks(right)))


def _diagonal(part: Matrix, kernel: Kernel) -> float:
    return float(sum(kernel(row[None], row[None])[0, 0] for row in part))
