"""Rates as they would be without a detector's mistakes, and upper bounds where nothing was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

LEAST = 0.05  # of sensitivity + specificity - 1: below it a detector tells next to nothing


@dataclass(frozen=True)
class Answers:
    """A detector's answers on labelled images: `found` of `positives` that show a thing, `false` of `negatives`."""

    positives: int
    found: int
    negatives: int
    false: int

    def __add__(self, other: Answers) -> Answers:
        return Answers(
            self.positives + other.positives,
            self.found + other.found,
            self.negatives + other.negatives,
            self.false + other.false,
        )

    @property
    def sensitivity(self) -> float:
        """The share of images that show the thing in which it is found; 0 of none."""
        return self.found / self.positives if self.positives else 0.0

    @property
    def specificity(self) -> float:
        """The share of images that do not show it in which it is not found; 0 of none."""
        return 1 - self.false / self.negatives if self.negatives else 0.0


@dataclass(frozen=True)
class Corrected:
    """A rate with its interval, all of 0 .. 1."""

    value: float
    low: float
    high: float


def rogan_gladen(seen: int, count: int, answers: Answers, *, confidence: float = 0.95) -> Corrected | None:
    """The rate of images that show a thing, of `count` in which a detector saw it in `seen` (Rogan & Gladen 1978).

    (seen / count + specificity - 1) / (sensitivity + specificity - 1), cut to 0 .. 1, with the interval of Lang &
    Reiczigel (2014), which holds all three numbers for estimates. None without images or labels of both kinds, or of a
    detector that tells next to nothing.
    """
    if not (count and answers.positives and answers.negatives):
        return None
    if answers.sensitivity + answers.specificity - 1 < LEAST:
        return None
    gain = answers.sensitivity + answers.specificity - 1
    value = (seen / count + answers.specificity - 1) / gain
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    images, shown, bare = count + z * z, answers.positives + 2, answers.negatives + 2
    apparent = (seen + z * z / 2) / images
    sensitivity, specificity = (answers.found + 1) / shown, (answers.negatives - answers.false + 1) / bare
    gain = sensitivity + specificity - 1
    middle = (apparent + specificity - 1) / gain
    of_shown, of_bare = sensitivity * (1 - sensitivity) / shown, specificity * (1 - specificity) / bare
    shift = 2 * z * z * (middle * of_shown - (1 - middle) * of_bare)
    spread = apparent * (1 - apparent) / images + middle**2 * of_shown + (1 - middle) ** 2 * of_bare
    half = z * spread**0.5 / gain
    low, high = middle + shift - half, middle + shift + half
    return Corrected(_cut(value), min(_cut(low), _cut(value)), max(_cut(high), _cut(value)))


def zero_bound(count: int, confidence: float = 0.95) -> Mapping[str, float]:
    """Upper bounds of a rate of which nothing was seen in `count` images.

    `rule_of_three`: 3 / n, at most 1, for 95 % confidence (Hanley & Lippman-Hand 1983); `exact`: 1 - (1 - c)^(1/n).
    """
    if not count:
        return {"rule_of_three": 1.0, "exact": 1.0}
    return {"rule_of_three": min(1.0, 3 / count), "exact": 1 - (1 - confidence) ** (1 / count)}


def _cut(value: float) -> float:
    return min(1.0, max(0.0, value))
