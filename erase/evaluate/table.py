"""The scores as a table for a terminal."""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from erase.evaluate.figures import Figure
from erase.evaluate.score import Scores

TITLES = {
    "ua": "UA, targets no longer seen",
    "ira": "IRA, others of their kind kept",
    "cra": "CRA, the other domain kept",
    "clip": "CLIP score (cosine x 100)",
    "clip_accuracy": "CLIP accuracy (target against anchor)",
    "style_accuracy": "judge's style accuracy",
    "object_accuracy": "judge's object accuracy",
}


def table(scores: Scores) -> Table:
    """Every figure before and after, with its interval, which way is better, and how many images it is of."""
    shown = Table(title=f"protocol {scores.protocol}", title_justify="left", header_style="bold", pad_edge=False)
    shown.add_column("score")
    shown.add_column("prompts")
    for heading in ("before", "after", "95 % interval", "images"):
        shown.add_column(heading, justify="right")
    shown.add_column("better")
    for figure in scores.figures:
        if figure.side == "after":
            shown.add_row(*_cells(figure, scores.find(figure.name, side="before", group=figure.group)))
            if figure.name == "cra":
                shown.add_section()
    remarks = [f"UA not measured: {scores.unmeasured}"] if scores.unmeasured else []
    if scores.missing:
        remarks.append(f"{len(scores.missing)} images are missing or damaged and count as the worst case")
    shown.caption = "\n".join(remarks) or None
    return shown


def _cells(after: Figure, before: Figure | None) -> list[str | Text]:
    return [
        TITLES.get(after.name, after.name),
        after.group,
        number(before) if before else "-",
        Text(number(after), style="bold"),
        f"{_plain(after, after.low)} - {_plain(after, after.high)}",
        str(after.n),
        "▲ higher" if after.direction == "higher" else "▼ lower",
    ]


def number(figure: Figure) -> str:
    """A figure's value as people read it: a rate in percent, a mean with one decimal."""
    return _plain(figure, figure.value) + ("" if figure.name == "clip" else " %")


def _plain(figure: Figure, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if figure.name == "clip" else f"{100 * value:.1f}"
