"""UA, IRA and CRA as UnlearnCanvas (Zhang et al. 2024) defines them, in both aggregations in use.

For a model that forgot X, acc(X, Y) is the share of Y's images that a classifier takes for Y. UA = 1 - acc(X, X);
IRA is the mean of acc(X, Y) over the other concepts of X's domain, CRA over those of the other domain. What is reported
is the mean over X. The benchmark ships no code for this; SAeUron's leaves the theme `Seed_Images` (photographs, of no
style) out of IRA and CRA, other audits keep it in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from erase.errors import ScoreFailed

SEED_THEME = "Seed_Images"
SEEDS = (188, 288, 588, 688, 888)
_NAME = re.compile(r"(?P<theme>.+)_(?P<object>[^_]+)_seed_?(?P<seed>\d+)\.(jpg|jpeg|png)", re.IGNORECASE)


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


def mean_of(models: Sequence[Canvas]) -> Canvas:
    """What is reported: the mean over the models, one a forgotten concept."""
    return Canvas(*(mean(getattr(one, name) for one in models) for name in ("ua", "ira", "cra")))


def accuracies(answers: Iterable[Answer]) -> dict[str, float]:
    """Each concept's share of right answers."""
    grouped: dict[str, list[bool]] = {}
    for one in answers:
        grouped.setdefault(one.concept, []).append(one.right)
    return {name: fmean(rights) for name, rights in grouped.items()}


def mean(values: Iterable[float]) -> float:
    listed = [value for value in values if not math.isnan(value)]
    return fmean(listed) if listed else math.nan


@dataclass(frozen=True)
class Layout:
    """An answer set as UnlearnCanvas lays it out, a file for each theme, object and seed; `missing` are named."""

    files: Mapping[tuple[str, str, int], Path]
    missing: tuple[str, ...]


def read_layout(folder: Path, themes: Sequence[str], objects: Sequence[str], seeds: Sequence[int] = SEEDS) -> Layout:
    """The files of a folder and of its folders one below, such as `Van_Gogh_Cats_seed_188.jpg` or `..._seed188.jpg`.

    Raises ScoreFailed if no file of the set is there.
    """
    asked = [(theme, thing, seed) for theme in themes for thing in objects for seed in seeds]
    found: dict[tuple[str, str, int], Path] = {}
    for path in sorted([*folder.glob("*.*"), *folder.glob("*/*.*")]):
        if match := _NAME.fullmatch(path.name):
            found.setdefault((match["theme"], match["object"], int(match["seed"])), path)
    files = {key: found[key] for key in asked if key in found}
    if not files:
        raise ScoreFailed(
            f"{folder} holds none of the {len(asked)} images; expected names as Theme_Object_seed_188.jpg."
        )
    return Layout(
        files,
        tuple(f"{theme}_{thing}_seed_{seed}" for theme, thing, seed in asked if (theme, thing, seed) not in files),
    )


def answers_of(
    layout: Layout,
    themes: Sequence[str],
    objects: Sequence[str],
    *,
    seeds: Sequence[int] = SEEDS,
    classify: Callable[[Path], tuple[str, str]],
    forgotten: Sequence[str],
) -> list[Answer]:
    """Both classifiers' answers to every image asked for, by the user's `classify` (path to theme and object).

    A missing image counts against the edit: as still taken for what was forgotten, as not recognised elsewhere.
    """
    answers = []
    for theme in themes:
        for thing in objects:
            for seed in seeds:
                path = layout.files.get((theme, thing, seed))
                seen = classify(path) if path else ("", "")
                for domain, asked, found in (("style", theme, seen[0]), ("object", thing, seen[1])):
                    right = found == asked if path else asked in forgotten
                    answers.append(Answer(domain, asked, right, theme))
    return answers
