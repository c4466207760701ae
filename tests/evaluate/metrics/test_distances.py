"""KID, CMMD and FID against their definitions written out over single pairs, and against laws with known distances."""

from __future__ import annotations

import math

import numpy as np
import pytest

from erase.errors import ScoreFailed
from erase.evaluate.metrics import distances
from erase.evaluate.metrics.distances import cmmd, kid, unbiased_mmd


def sets(m: int = 9, n: int = 7, width: int = 5, shift: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    return rng.normal(size=(m, width)), rng.normal(size=(n, width)) + shift


def cmmd_by_pairs(one: np.ndarray, other: np.ndarray) -> float:
    """The biased estimator as a sum over pairs in plain Python floats."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        x, y = x / math.sqrt(math.fsum(x * x)), y / math.sqrt(math.fsum(y * y))
        return math.exp(-math.fsum((x - y) ** 2) / (2 * 10.0**2))

    def mean(left: np.ndarray, right: np.ndarray) -> float:
        return math.fsum(kernel(x, y) for x in left for y in right) / (len(left) * len(right))

    return 1000 * (mean(one, one) + mean(other, other) - 2 * mean(one, other))


def kid_by_pairs(one: np.ndarray, other: np.ndarray) -> float:
    """The unbiased estimator with the cubic kernel as a sum over pairs in plain Python floats."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (math.fsum(x * y) / len(x) + 1) ** 3

    def apart(part: np.ndarray) -> float:
        count = len(part)
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
        return math.fsum(kernel(part[i], part[j]) for i, j in pairs) / len(pairs)

    crossed = math.fsum(kernel(x, y) for x in one for y in other) / (len(one) * len(other))
    return apart(one) + apart(other) - 2 * crossed


@pytest.mark.parametrize("block", [2, 3, 1024])
def test_cmmd_is_its_definition_whatever_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK", block)
    one, other = sets()
    assert cmmd(one, other) == pytest.approx(cmmd_by_pairs(one, other), abs=1e-8)
    assert cmmd(one, one) == pytest.approx(0.0, abs=1e-9)


def test_cmmd_reads_directions_only() -> None:
    one, other = sets()
    assert cmmd(one * 7.0, other) == pytest.approx(cmmd(one, other), abs=1e-9)


@pytest.mark.parametrize("block", [2, 1024])
def test_kid_of_whole_sets_is_its_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK", block)
    one, other = sets(8, 8)
    found = kid(one, other, subsets=3)
    assert found.value == pytest.approx(kid_by_pairs(one, other), abs=1e-10)
    assert found.n == 8
    assert found.high - found.low == pytest.approx(0.0, abs=1e-10)  # every subset is the whole set


def test_the_unbiased_estimator_is_nought_on_average() -> None:
    rng = np.random.default_rng(0)

    def linear(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(x @ y.T)

    values = [unbiased_mmd(rng.normal(size=(6, 3)), rng.normal(size=(5, 3)), linear) for _ in range(4000)]
    assert np.mean(values) == pytest.approx(0.0, abs=4 * np.std(values) / math.sqrt(len(values)))
    assert min(values) < 0 < max(values)


def test_kid_tells_sets_apart_and_is_the_same_for_a_seed() -> None:
    rng = np.random.default_rng(2)
    one, same, other = rng.normal(size=(300, 16)), rng.normal(size=(300, 16)), rng.normal(size=(300, 16)) + 0.5
    near, far = (kid(one, part, subset=100, subsets=20) for part in (same, other))
    assert near.low < 0 < near.high
    assert far.low > near.high
    assert kid(one, other, subset=100, subsets=20) == far
    assert kid(one, other, subset=100, subsets=20, seed=1) != far


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (np.zeros((4, 3)), "take one extractor"),
        (np.full((4, 5), np.nan), "NaN or infinite"),
        (np.zeros((0, 5)), "expected"),
        (np.zeros(5), "expected"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(other: np.ndarray, said: str) -> None:
    for distance in (cmmd, kid):
        with pytest.raises(ScoreFailed, match=said):
            distance(sets()[0], other)
