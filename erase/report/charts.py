"""The plots of a report as SVG text: intervals, distributions, threshold curves, runs against each other.

Colours are left to the page's style sheet.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from erase.evaluate.metrics.figure import Figure


@dataclass(frozen=True)
class Scale:
    """Maps values `low` .. `high` to pixels `start` .. `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.stop - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        """Round values inside the scale, about so many."""
        rough = (self.high - self.low or 1.0) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= rough)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def drawing(width: float, height: float, *, label: str, parts: Iterable[Markup], style: str = "plot") -> Markup:
    """A whole SVG that says in words what it shows."""
    start = element("svg", viewBox=f"0 0 {width:g} {height:g}", role="img", **{"class": style, "aria-label": label})
    return Markup(start.removesuffix("/>")) + Markup(">") + Markup("").join(parts) + Markup("</svg>")


def element(name: str, content: str | None = None, **attributes: object) -> Markup:
    """One element; a trailing underscore in an attribute's name is dropped, others become hyphens."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    text = "".join(f' {key}="{escape(_plain(value))}"' for key, value in pairs)
    return Markup(f"<{name}{text}/>" if content is None else f"<{name}{text}>{escape(content)}</{name}>")


def titled(name: str, title: str, **attributes: object) -> Markup:
    """An element that tells more under the pointer."""
    return Markup(str(element(name, "", **attributes)).replace("></", f">{element('title', title)}</"))


def polyline(corners: Sequence[tuple[float, float]], *, style: str) -> Markup:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners), class_=style)


def text(content: str, x: float, y: float, *, anchor: str = "start", style: str = "") -> Markup:
    """Words at a place; `anchor` start, middle or end."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=style)


def _plain(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


BINS = 24
_PANEL = (340.0, 206.0)  # pixels of a distribution or a curve
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 10.0, 26.0


@dataclass(frozen=True)
class Curve:
    """How many of the images score a threshold or more, before and after; shares fall as thresholds rise."""

    thresholds: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]


def threshold_curve(before: Sequence[float], after: Sequence[float]) -> Curve:
    """The curve at every value that occurs and just above the largest."""
    thresholds = sorted({*before, *after})
    shares = [[sum(one >= edge for one in values) / len(values) for edge in thresholds] for values in (before, after)]
    return Curve(tuple(thresholds), tuple(shares[0]), tuple(shares[1]))


def histogram(values: Sequence[float], low: float, high: float) -> list[int]:
    """How many values fall into each of BINS equal parts of `low` .. `high`."""
    counts = [0] * BINS
    for value in values:
        counts[min(int((value - low) / ((high - low) or 1.0) * BINS), BINS - 1)] += 1
    return counts


def interval_bar(before: Figure | None, after: Figure, *, span: tuple[float, float], bound: float | None) -> Markup:
    """A value's interval on a line, before above and after below it, with the bound that it must reach."""
    scale = Scale(*span, 6.0, 214.0)
    parts = [element("line", x1=6, x2=214, y1=20, y2=20, class_="rail")]
    if bound is not None:
        x, told = scale(bound), f"at least {100 * bound:.0f} % is asked"
        parts.append(titled("line", told, x1=x, x2=x, y1=3, y2=37, class_="bound"))
    for figure, y, side in ((before, 12.0, "before"), (after, 28.0, "after")):
        if figure is not None and figure.value == figure.value:
            parts.append(
                element("line", x1=scale(figure.low), x2=scale(figure.high), y1=y, y2=y, class_=f"whisker {side}")
            )
            parts.append(element("circle", cx=scale(figure.value), cy=y, r=4.5, class_=f"dot {side}"))
    label = f"{after.name} after the edit with its 95 % interval" + (", and before it" if before else "")
    return drawing(220, 40, label=label, parts=parts, style="interval")


def distribution(before: Sequence[float], after: Sequence[float], *, span: tuple[float, float], label: str) -> Markup:
    """Both sides' histograms, back to back on one axis, with their means."""
    width, height = _PANEL
    scale, middle = Scale(*span, _LEFT, width - _RIGHT), (height - _BOTTOM + _TOP) / 2
    tallest = max(max(histogram(values, *span)) for values in (before, after)) or 1
    reach = (height - _BOTTOM - _TOP) / 2 - 18
    parts = _axis(scale, y=height - _BOTTOM)
    for values, side, way in ((before, "before", -1), (after, "after", 1)):
        parts += _bars(values, span, scale, middle=middle, reach=way * reach / tallest, side=side)
        x, end = scale(sum(values) / len(values)), middle + way * (reach + 4)
        parts.append(element("line", x1=x, x2=x, y1=middle, y2=end, class_=f"mean {side}"))
        key = f"{side}, mean {short(sum(values) / len(values))}"
        parts.append(text(key, _LEFT, end + (12 if way > 0 else -3), style=f"key {side}"))
    parts.append(element("line", x1=_LEFT, x2=width - _RIGHT, y1=middle, y2=middle, class_="axis"))
    return drawing(width, height, label=label, parts=parts)


def curves(curve: Curve, *, span: tuple[float, float], label: str) -> Markup:
    """The share of images at or over each threshold, as steps, before and after."""
    width, height = _PANEL
    x, y = Scale(*span, _LEFT, width - _RIGHT), Scale(0.0, 1.0, height - _BOTTOM, _TOP)
    parts = _axis(x, y=height - _BOTTOM)
    for share in (0.0, 0.5, 1.0):
        parts.append(element("line", x1=_LEFT, x2=width - _RIGHT, y1=y(share), y2=y(share), class_="gridline"))
        parts.append(text(f"{100 * share:.0f} %", _LEFT - 5, y(share) + 4, anchor="end", style="tick"))
    for shares, side in ((curve.before, "before"), (curve.after, "after")):
        points, level = [(x.start, y(1.0))], 1.0
        for edge, share in zip(curve.thresholds, (*shares[1:], 0.0), strict=True):
            points += [(x(edge), y(level)), (x(edge), y(share))]
            level = share
        parts.append(polyline([*points, (x.stop, y(0.0))], style=f"curve {side}"))
    return drawing(width, height, label=label, parts=parts)


def _bars(
    values: Sequence[float], span: tuple[float, float], scale: Scale, *, middle: float, reach: float, side: str
) -> list[Markup]:
    """One side's bars, up from the middle where `reach` (pixels an image) is negative and down where it is not."""
    step = (scale.stop - scale.start) / BINS
    bars = []
    for number, count in enumerate(histogram(values, *span)):
        if count:
            top, tall = middle + min(reach * count, 0.0), abs(reach * count)
            title = f"{count} {side}"
            left = scale.start + number * step
            bars.append(titled("rect", title, x=left + 0.5, y=top, width=step - 1, height=tall, class_=f"bar {side}"))
    return bars


def _axis(scale: Scale, *, y: float) -> list[Markup]:
    ticks = [text(short(tick), scale(tick), y + 17, anchor="middle", style="tick") for tick in scale.ticks()]
    marks = [element("line", x1=scale(tick), x2=scale(tick), y1=y, y2=y + 4, class_="axis") for tick in scale.ticks()]
    return [element("line", x1=scale.start, x2=scale.stop, y1=y, y2=y, class_="axis"), *marks, *ticks]


def short(value: float) -> str:
    return f"{value:.3g}"


def span_of(figures: Sequence[Figure]) -> tuple[float, float]:
    """The smallest and largest value of any image of the figures, a little apart if they are one."""
    values = [value for figure in figures for value in figure.items.values()]
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


@dataclass(frozen=True)
class Point:
    """One run in the Pareto plot: retention and erasure, each with its interval, all 0 .. 1."""

    label: str
    retention: tuple[float, float, float]  # value, low, high
    erasure: tuple[float, float, float]
    is_base: bool = False


def pareto(points: Sequence[Point]) -> Markup:
    """Erasure against retention, a cross of intervals for each run; up and right is better, the front is a line."""
    width, height = 430.0, 370.0
    x, y = Scale(0.0, 1.0, 52.0, width - 24), Scale(0.0, 1.0, height - 44, 28.0)
    parts = _square_axes(x, y)
    front = pareto_front(points)
    if front:
        parts.append(polyline(_staircase(front, x, y), style="front"))
    for number, point in enumerate(points):  # a ring around each later one in the same place, so that none is hidden
        rings = sum(
            all(abs(a[0] - b[0]) < 0.02 for a, b in ((point.retention, one.retention), (point.erasure, one.erasure)))
            for one in points[number + 1 :]
        )
        parts += _cross(point, x, y, number=number, radius=7 + 4 * rings)
    parts += _labels(points, x, y)
    return drawing(width, height, label="Erasure against retention of every run", parts=parts, style="plot pareto")


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The runs that no other run beats in both, by rising retention; the base model is none of them."""
    runs = [point for point in points if not point.is_base]
    both = {point: (point.retention[0], point.erasure[0]) for point in runs}
    best = [
        one
        for one in runs
        if not any(other != both[one] and all(map(operator.ge, other, both[one])) for other in both.values())
    ]
    return sorted(best, key=lambda point: (point.retention[0], -point.erasure[0]))


def _staircase(front: Sequence[Point], x: Scale, y: Scale) -> list[tuple[float, float]]:
    steps = [(x(0.0), y(front[0].erasure[0]))]
    for point in front:
        steps += [(steps[-1][0], y(point.erasure[0])), (x(point.retention[0]), y(point.erasure[0]))]
    return [*steps, (steps[-1][0], y(0.0))]


def _square_axes(x: Scale, y: Scale) -> list[Markup]:
    parts = []
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(element("line", x1=x.start, x2=x.stop, y1=y(share), y2=y(share), class_="gridline"))
        parts.append(element("line", x1=x(share), x2=x(share), y1=y.start, y2=y.stop, class_="gridline"))
        parts.append(text(f"{100 * share:.0f}", x(share), y.start + 17, anchor="middle", style="tick"))
        parts.append(text(f"{100 * share:.0f}", x.start - 8, y(share) + 4, anchor="end", style="tick"))
    below, middle = y.start + 36, (y.start + y.stop) / 2
    parts.append(text("retention: min(IRA, CRA), %", (x.start + x.stop) / 2, below, anchor="middle", style="title"))
    turned = f"translate(14 {middle:.0f}) rotate(-90)"
    name = element("text", "erasure: UA, %", transform=turned, text_anchor="middle", class_="title")
    return [*parts, name]


def _cross(point: Point, x: Scale, y: Scale, *, number: int, radius: int) -> list[Markup]:
    across, up = x(point.retention[0]), y(point.erasure[0])
    style = f"run{' base' if point.is_base else f' hue{number % 6}'}"
    told = f"{point.label}: erasure {_share(point.erasure)}, retention {_share(point.retention)}"
    low, high = point.retention[1:], point.erasure[1:]
    return [
        element("line", x1=x(low[0]), x2=x(low[1]), y1=up, y2=up, class_=f"whisker {style}"),
        element("line", x1=across, x2=across, y1=y(high[0]), y2=y(high[1]), class_=f"whisker {style}"),
        titled("circle", told, cx=across, cy=up, r=radius, class_=f"dot {style}"),
    ]


def _labels(points: Sequence[Point], x: Scale, y: Scale) -> list[Markup]:
    """Each run's name beside its point, on the side where there is room, moved down where two would touch."""
    placed: list[tuple[float, float]] = []
    parts = []
    for point in sorted(points, key=lambda one: -one.erasure[0]):
        across, up = x(point.retention[0]), y(point.erasure[0]) - 10
        while any(abs(across - other) < 150 and abs(up - level) < 14 for other, level in placed):
            up += 14
        placed.append((across, up))
        right = across > (x.start + x.stop) / 2
        parts.append(text(point.label, across + (-11 if right else 11), up, anchor="end" if right else "start"))
    return parts


def _share(values: tuple[float, float, float]) -> str:
    value, low, high = (100 * one for one in values)
    return f"{value:.1f} % ({low:.0f} to {high:.0f})"
