"""A score: one value with its interval, the value of every image behind it, and what it is called in full."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from erase.evaluate.images import Group, Side
from erase.evaluate.statistics.intervals import bootstrap_mean, wilson

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Figure:
    """A value over the images of a group and side.

    `low` and `high` bound it with 95 % confidence; `direction` says which way is better; `items` holds each image's
    own value by its name, the worst one for an image that is missing.
    """

    name: str
    group: Group | Literal["all"]
    side: Side
    value: float
    low: float
    high: float
    n: int
    direction: Direction
    version: str
    items: Mapping[str, float] = field(default_factory=dict)

    def is_same(self, other: Figure) -> bool:
        """Whether both measure the same thing, by the same version, on the same prompts."""
        return (self.name, self.group, self.version) == (other.name, other.group, other.version)

    @property
    def is_graded(self) -> bool:
        """Whether its images have values between yes and no."""
        return any(value not in (0.0, 1.0) for value in self.items.values())


def rate(
    items: Mapping[str, float],
    concepts: Mapping[str, str],
    *,
    name: str,
    group: Group | Literal["all"],
    side: Side,
    direction: Direction,
    version: str,
) -> Figure:
    """A share with Wilson's interval: the mean over concepts of each concept's share of images.

    `items` holds 1 or 0 for each image, `concepts` which concept an image belongs to.
    """
    by_concept: dict[str, list[float]] = {}
    for identity, value in items.items():
        by_concept.setdefault(concepts[identity], []).append(value)
    value = fmean(fmean(values) for values in by_concept.values()) if by_concept else float("nan")
    low, high = wilson(round(value * len(items)), len(items)) if items else (0.0, 1.0)
    return Figure(name, group, side, value, low, high, len(items), direction, version, dict(items))


def mean(
    items: Mapping[str, float], *, name: str, group: Group, side: Side, direction: Direction, version: str
) -> Figure:
    """A mean with the bootstrap's interval."""
    values = list(items.values())
    low, high = bootstrap_mean(values)
    value = fmean(values) if values else float("nan")
    return Figure(name, group, side, value, low, high, len(values), direction, version, dict(items))
