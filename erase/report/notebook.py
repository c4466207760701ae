"""Scores as a notebook shows them: a table that needs no style sheet."""

from __future__ import annotations

from erase.evaluate.attacked import headline
from erase.evaluate.score import Scores
from erase.report.comparison import with_interval
from erase.report.findings import before_of
from erase.report.page import render
from erase.report.table import TITLES


def scores_html(scores: Scores) -> str:
    """Every figure before and after with its interval, as one HTML element."""
    rows = [
        (TITLES.get(after.name, after.name), with_interval(before_of(scores, after)), with_interval(after), after)
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
