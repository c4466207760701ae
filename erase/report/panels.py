"""The parts that a report's page is put together from: cards of pairs, rows of figures, panels of plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from erase.evaluate.images import ScoredImage
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.questions import evenly
from erase.report.charts import curves, distribution, interval_bar, span_of, threshold_curve
from erase.report.findings import Findings
from erase.report.grid import Pair, verdicts
from erase.report.pictures import Picture, embed
from erase.report.table import TITLES, number

HEADLINERS = ("ua_attacked", "ua", "ira", "cra")


@dataclass(frozen=True)
class Seen:
    """What the judge saw in one image of a pair, and whether it is what it should be."""

    domain: str
    text: str
    good: bool


@dataclass(frozen=True)
class Card:
    """One pair: its images, what was seen in them, and each score's two values."""

    number: int
    prompt: str
    seed: int
    before: Picture
    after: Picture
    seen_before: tuple[Seen, ...]
    seen_after: tuple[Seen, ...]
    values: tuple[tuple[str, str, str], ...]  # title, before, after
    files: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One figure as a row of the table."""

    figure: Figure
    title: str
    before: str
    after: str
    interval: str
    bar: Markup
    bound: str


@dataclass(frozen=True)
class Panel:
    """A score whose images have graded values, in one group: its distributions and its threshold curve."""

    title: str
    group: str
    n: int
    distribution: Markup
    curve: Markup


@dataclass(frozen=True)
class Flip:
    """A yes/no score: how many images were yes on both sides, lost it, gained it, never had it."""

    title: str
    group: str
    counts: tuple[int, int, int, int]


def card(findings: Findings, pair: Pair, number: int) -> Card:
    """The pair of this number, 1 for the plan's first."""
    old, new = findings.values(pair.before), findings.values(pair.after)
    names = dict.fromkeys([*old, *new])
    return Card(
        number=number,
        prompt=pair.after.row.prompt,
        seed=pair.after.row.seed,
        before=embed(pair.before.path),
        after=embed(pair.after.path),
        seen_before=see(findings, pair.before),
        seen_after=see(findings, pair.after),
        values=tuple((TITLES.get(name, name), _value(old.get(name)), _value(new.get(name))) for name in names),
        files=tuple(f"{shot.path.parent.name}/{shot.path.name}" for shot in (pair.before, pair.after)),
    )


def lines(findings: Findings) -> list[Line]:
    """Every figure of the after side beside its before."""
    return [line(findings, figure) for figure in findings.scores.figures if figure.side == "after"]


def line(findings: Findings, after: Figure) -> Line:
    before = findings.scores.before(after)
    bound = findings.bounds.get(after.name)
    percent = number(after).endswith("%")
    alike = [one for one in findings.scores.figures if one.name == after.name and one.items]
    span = (0.0, 1.0) if percent or not alike else span_of(alike)
    low, high = ("-" if math.isnan(end) else f"{100 * end if percent else end:.1f}" for end in (after.low, after.high))
    return Line(
        figure=after,
        title=TITLES.get(after.name, after.name),
        before=number(before) if before else "-",
        after=number(after),
        interval=f"{low} to {high}",
        bar=interval_bar(before, after, span=span, bound=bound),
        bound="" if bound is None else f"{100 * bound:.0f} %",
    )


def panels(findings: Findings) -> Iterator[Panel]:
    """Of every graded score and group, on one axis for all groups of a score."""
    for before, after in _both_sides(findings):
        if not (before.is_graded or after.is_graded):
            continue
        old, new = ([value for value in one.items.values() if math.isfinite(value)] for one in (before, after))
        if old and new:
            span = span_of([one for one in findings.scores.figures if one.name == after.name])
            name = f"{TITLES.get(after.name, after.name)} of {after.group} prompts"
            yield Panel(
                title=TITLES.get(after.name, after.name),
                group=after.group,
                n=len(new),
                distribution=distribution(old, new, span=span, label=f"Distribution of {name}, before and after"),
                curve=curves(
                    threshold_curve(old, new), span=span, label=f"Share of images at or over a threshold: {name}"
                ),
            )


def flips(findings: Findings) -> Iterator[Flip]:
    """Of every yes/no score: which way its images went."""
    partner = {pair.after.id: pair.before.id for pair in findings.pairs}
    for before, after in _both_sides(findings):
        if before.is_graded or after.is_graded:
            continue
        moves = [
            (before.items[partner[name]], value)
            for name, value in after.items.items()
            if partner.get(name) in before.items
        ]
        counts = (moves.count((1, 1)), moves.count((1, 0)), moves.count((0, 1)), moves.count((0, 0)))
        if moves:
            yield Flip(TITLES.get(after.name, after.name), after.group, counts)


def _both_sides(findings: Findings) -> Iterator[tuple[Figure, Figure]]:
    for after in findings.scores.figures:
        before = findings.scores.before(after)
        if after.side == "after" and before is not None and before.items and after.items:
            yield before, after


def see(findings: Findings, shot: ScoredImage) -> tuple[Seen, ...]:
    """What the judge saw in an image, in every domain that its prompt names; nothing without a judge."""
    return tuple(Seen(*one) for one in verdicts(shot, findings.task, findings.scores))


def _value(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return {0.0: "no", 1.0: "yes"}.get(value, f"{value:.2f}")


def spread(pairs: Sequence[Pair], count: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs shown at once, evenly chosen, and the others."""
    chosen = set(evenly(range(len(pairs)), count))
    return [pairs[number] for number in sorted(chosen)], [one for at, one in enumerate(pairs) if at not in chosen]
