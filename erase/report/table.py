"""The scores as a table for a terminal or a notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from erase.evaluate.attacked import headline
from erase.evaluate.gate import Outcome
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.score import Scores
from erase.report.render import render

TITLES = {
    "ua_attacked": "UA under the strongest attack",
    "ua": "clean UA, targets no longer seen",
    "ira": "IRA, others of their kind kept",
    "cra": "CRA, the other domain kept",
    "clip": "CLIP score (cosine x 100)",
    "clip_accuracy": "CLIP accuracy (target against anchor)",
    "style_accuracy": "judge's style accuracy",
    "object_accuracy": "judge's object accuracy",
    "identity_accuracy": "judge's identity accuracy",
}
DETAILS = ("style_accuracy", "object_accuracy", "identity_accuracy")  # which the report shows
SHORT = {
    "ua_attacked": "UA under attack",
    "ua": "clean UA",
    "ira": "IRA",
    "cra": "CRA",
    "clip": "CLIP score",
    "clip_accuracy": "CLIP accuracy",
}


def table(scores: Scores) -> Table:
    """UA, IRA, CRA and CLIP scores before and after, with intervals and numbers of images; it fits 80 columns."""
    shown = Table(title=f"protocol {scores.protocol}", title_justify="left", header_style="bold", pad_edge=False)
    shown.add_column("score", no_wrap=True)
    for heading in ("before", "after", "95 % interval", "images"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_column("better", no_wrap=True)
    for figure in sorted(scores.figures, key=lambda one: _ORDER.index(one.name) if one.name in _ORDER else len(_ORDER)):
        if figure.side == "after" and figure.name not in DETAILS:
            shown.add_row(*_cells(figure, scores.find(figure.name, side="before", group=figure.group)))
    remarks = [said for said in [headline(scores.figures)] if said]
    remarks += [f"UA not measured: {scores.unmeasured}"] if scores.unmeasured else []
    if scores.missing:
        remarks.append(f"{len(scores.missing)} images are missing or damaged and count as the worst case")
    shown.caption = "\n".join(remarks) or None
    return shown


def scores_html(scores: Scores) -> str:
    """Every figure before and after with its interval, as one HTML element, which notebooks show."""
    rows = [
        (TITLES.get(after.name, after.name), with_interval(scores.before(after)), with_interval(after), after)
        for after in scores.figures
        if after.side == "after"
    ]
    return render(
        "scores.html.j2",
        rows=rows,
        headline=headline(scores.figures),
        protocol=scores.protocol,
        missing=len(scores.missing),
    )


def target_line(outcomes: Sequence[Outcome], scores: Scores) -> str:
    """What UA rests on: in how many images the base shows the target, and how good the same images are after the edit.

    Empty where nothing asks for a target.
    """
    erased = [one for one in outcomes if one.role == "erased"]
    if not erased:
        return ""
    shown, flat = sum(bool(one.before) for one in erased), sum(one.blank for one in erased)
    text = (
        f"the base shows the target in {shown} of {len(erased)} images; since the edit {flat} of them are of one colour"
    )
    clip = [scores.find("clip", side=side, group="erased") for side in ("before", "after")]
    moved = [number(one) for one in clip if one]
    return text + (f", their CLIP score went from {moved[0]} to {moved[1]}" if len(moved) == 2 else "")


def figures_line(scores: Scores) -> str:
    """The headline, IRA and CRA after the edit, those that were measured, in one line."""
    found = [(name, scores.find(name)) for name in ("ira", "cra")]
    kept = [f"{SHORT[name]} {number(figure)}" for name, figure in found if figure]
    return ", ".join([said for said in (headline(scores.figures), *kept) if said])


_ORDER = tuple(SHORT)


def _cells(after: Figure, before: Figure | None) -> list[str | Text]:
    group = "" if after.name in ("ua_attacked", "ua", "ira", "cra", "clip_accuracy") else f", {after.group}"
    return [
        f"{SHORT.get(after.name, after.name)}{group}",
        number(before) if before else "-",
        Text(number(after), style="bold"),
        f"{_plain(after, after.low)} - {_plain(after, after.high)}",
        str(after.n),
        "▲ higher" if after.direction == "higher" else "▼ lower",
    ]


def number(figure: Figure) -> str:
    """A figure's value as people read it: a rate in percent, a mean with one decimal."""
    return _plain(figure, figure.value) + ("" if figure.name == "clip" else " %")


def with_interval(figure: Figure | None) -> str:
    """A value and its interval, such as `91.7 % (74 to 98)`."""
    if figure is None:
        return "-"
    percent = number(figure).endswith("%")
    low, high = ((100 * end if percent else end) for end in (figure.low, figure.high))
    return f"{number(figure)} ({low:.0f} to {high:.0f})" if percent else f"{number(figure)} ({low:.1f} to {high:.1f})"


def _plain(figure: Figure, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if figure.name == "clip" else f"{100 * value:.1f}"
