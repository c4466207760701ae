"""The Pareto plot of several runs: how much of the target is gone against how much of the rest stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from erase.report._svg import Scale, drawing, element, polyline, text, titled


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
        rings = sum(_touches(point, other) for other in points[number + 1 :])
        parts += _cross(point, x, y, number=number, radius=7 + 4 * rings)
    parts += _labels(points, x, y)
    return drawing(width, height, label="Erasure against retention of every run", parts=parts, style="plot pareto")


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The runs that no other run beats in both, by rising retention; the base model is none of them."""
    runs = [point for point in points if not point.is_base]
    best = [one for one in runs if not any(_beats(other, one) for other in runs)]
    return sorted(best, key=lambda point: (point.retention[0], -point.erasure[0]))


def _beats(one: Point, other: Point) -> bool:
    pairs = ((one.retention[0], other.retention[0]), (one.erasure[0], other.erasure[0]))
    return all(left >= right for left, right in pairs) and any(left > right for left, right in pairs)


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


def _touches(one: Point, other: Point) -> bool:
    """Whether two runs' dots would hide each other."""
    return all(abs(a[0] - b[0]) < 0.02 for a, b in ((one.retention, other.retention), (one.erasure, other.erasure)))


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
