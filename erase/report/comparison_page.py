"""The page of several runs side by side, and beside it the same as JSON and CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erase.config.prompts import Row
from erase.evaluate.images import GROUPS, ScoredImage
from erase.evaluate.result import plain
from erase.files import write_atomically
from erase.report import records
from erase.report.charts import pareto
from erase.report.comparison import (
    BASE,
    LEAST,
    Comparison,
    comparison_records,
    difference_records,
    differences,
    entries,
    harm,
    points,
    under_attack,
)
from erase.report.findings import Findings
from erase.report.grid import TITLES, choose
from erase.report.page import facts
from erase.report.panels import Seen, see
from erase.report.pictures import Picture, embed
from erase.report.render import render
from erase.report.table import TITLES as SCORES
from erase.report.table import with_interval
from erase.report.verdict import Verdict, reach_verdict

COLUMNS = 8  # prompts of a group that are shown


@dataclass(frozen=True)
class Frame:
    """One run's image of a prompt."""

    row: Row
    picture: Picture
    seen: tuple[Seen, ...]


@dataclass(frozen=True)
class Strip:
    """One group's images: its prompts, and a row of frames for the model before and for each run."""

    group: str
    title: str
    rows: tuple[Row, ...]
    frames: tuple[tuple[str, tuple[Frame, ...]], ...]


@dataclass(frozen=True)
class Competitor:
    """One run as a card: its label, what it came to, and what it is made of."""

    label: str
    verdict: Verdict
    method: str
    targets: tuple[str, ...]
    facts: dict[str, str]


def write_comparison(comparison: Comparison, page: Path) -> tuple[Path, ...]:
    """The files written: a .json and a .csv of the page's name beside it, and last the page."""
    files = {
        page.with_suffix(".json"): records.as_json(as_values(comparison)),
        page.with_suffix(".csv"): records.as_csv(comparison_records(comparison)),
        page: comparison_html(comparison),
    }
    for path, text in files.items():
        write_atomically(path, text)
    return tuple(files)


def as_values(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as plain values."""
    return {
        "caution": comparison.caution,
        "differences": plain(difference_records(comparison)),
        "runs": {label: records.everything(run) for label, run in comparison.runs.items()},
    }


def comparison_html(comparison: Comparison) -> str:
    """The whole page; the same runs give the same bytes."""
    plotted = points(comparison)
    return render(
        "compare.html.j2",
        competitors=[
            Competitor(label, reach_verdict(run), str(run.edit.get("method")), run.task.names, facts(run))
            for label, run in comparison.runs.items()
        ],
        caution=comparison.caution,
        entries=entries(comparison),
        with_interval=with_interval,
        under=under_attack(comparison),
        differences=differences(comparison),
        least=LEAST,
        titles=SCORES,
        pareto=pareto(plotted) if len(plotted) > 1 else None,
        harm=harm(comparison),
        strips=[strip for group in GROUPS if (strip := _strip(comparison, group))],
        is_veiled=any(run.is_veiled for run in comparison.runs.values()),
        pairs=len(comparison.first.pairs),
        files={
            "compare.json": records.as_json(as_values(comparison)),
            "compare.csv": records.as_csv(comparison_records(comparison)),
        },
    )


def _strip(comparison: Comparison, group: str) -> Strip | None:
    """The images of a group, as the first run groups its prompts; None if it has none."""
    chosen = choose([pair for pair in comparison.first.pairs if pair.after.group == group], COLUMNS)
    if not chosen:
        return None
    keys = [pair.after.row.key for pair in chosen]
    frames = [(BASE, tuple(_frame(comparison.first, pair.before) for pair in chosen))]
    for label, run in comparison.runs.items():
        own = {pair.after.row.key: pair for pair in run.pairs}
        frames.append((label, tuple(_frame(run, own[key].after) for key in keys)))
    title = next(text for name, text in TITLES.items() if name == group)
    return Strip(group, title, tuple(pair.after.row for pair in chosen), tuple(frames))


def _frame(run: Findings, shot: ScoredImage) -> Frame:
    return Frame(shot.row, embed(shot.path), see(run, shot))
