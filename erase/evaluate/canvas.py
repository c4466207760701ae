"""UA, IRA and CRA as UnlearnCanvas (Zhang et al. 2024) defines them, in both aggregations in use.

For a model that forgot X, acc(X, Y) is the share of Y's images that a classifier takes for Y. UA = 1 - acc(X, X);
IRA is the mean of acc(X, Y) over the other concepts of X's domain, CRA over those of the other domain. What is reported
is the mean over X. The benchmark ships no code for this; SAeUron's leaves the theme `Seed_Images` (photographs, of no
style) out of IRA and CRA, other audits keep it in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

SEED_THEME = "Seed_Images"


@dataclass(frozen=True)
class Answer:
    """Whether a classifier of `domain` saw in an image the concept that was asked for; `theme` is the image's style."""

    domain: str
    concept: str
    right: bool
    theme: str = ""


@dataclass(frozen=True)
class Canvas:
    """The three numbers, each 0 .. 1 and better the higher; not a number where nothing was asked."""

    ua: float
    ira: float
    cra: float


def canvas(answers: Iterable[Answer], targets: Sequence[str], *, domain: str, with_seed: bool = False) -> Canvas:
    """The three numbers of one model that forgot the targets."""
    counted = [one for one in answers if with_seed or SEED_THEME not in (one.theme, one.concept)]
    same = accuracies(one for one in counted if one.domain == domain)
    other = accuracies(one for one in counted if one.domain != domain)
    return Canvas(
        ua=mean(1 - value for name, value in same.items() if name in targets),
        ira=mean(value for name, value in same.items() if name not in targets),
        cra=mean(other.values()),
    )


def accuracies(answers: Iterable[Answer]) -> dict[str, float]:
    """Each concept's share of right answers."""
    grouped: dict[str, list[bool]] = {}
    for one in answers:
        grouped.setdefault(one.concept, []).append(one.right)
    return {name: fmean(rights) for name, rights in grouped.items()}


def mean(values: Iterable[float]) -> float:
    listed = [value for value in values if not math.isnan(value)]
    return fmean(listed) if listed else math.nan
