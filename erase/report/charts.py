"""The plots of a report: intervals, distributions before and after, threshold curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from erase.evaluate.metrics.figure import Figure
from erase.report._svg import Scale, drawing, element, polyline, text, titled

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
            parts += _whisker(figure, scale, y=y, style=side)
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


def _whisker(figure: Figure, scale: Scale, *, y: float, style: str) -> list[Markup]:
    return [
        element("line", x1=scale(figure.low), x2=scale(figure.high), y1=y, y2=y, class_=f"whisker {style}"),
        element("circle", cx=scale(figure.value), cy=y, r=4.5, class_=f"dot {style}"),
    ]


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
