"""Several runs of the same prompts and seeds side by side: their figures, their trade-off, what each one harms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from erase.errors import RunConflict
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.statistics.paired import Change, mcnemar, mean_change, sign_flips
from erase.report.charts import Point
from erase.report.findings import Findings
from erase.report.matrices import Matrix, retained
from erase.report.records import figure_records
from erase.report.table import TITLES, number, with_interval

BASE = "before"
LEAST = 10  # pairs of which a difference may be called more than chance


@dataclass(frozen=True)
class Comparison:
    """Runs by label; raises RunConflict on fewer than two, or on runs of different prompts or seeds."""

    runs: Mapping[str, Findings]

    def __post_init__(self) -> None:
        if len(self.runs) < 2:
            raise RunConflict("one run is nothing to compare; give at least two different runs.")
        (label, first), *others = self.runs.items()
        for other, findings in others:
            _refuse_other_rows({label: first.rows, other: findings.rows})

    @property
    def first(self) -> Findings:
        return next(iter(self.runs.values()))

    @property
    def is_of_one_base(self) -> bool:
        """Whether all runs start from the same images: the same model, sampled in the same way."""
        return len({tuple(sorted(pair.before.id for pair in run.pairs)) for run in self.runs.values()}) == 1

    @property
    def caution(self) -> str:
        """What a reader must know before comparing, if anything."""
        if self.is_of_one_base:
            return ""
        return "The runs start from different images: of another base model or sampled otherwise."


@dataclass(frozen=True)
class Entry:
    """One figure in every run that has it; `before` is None where the runs do not share it."""

    figure: Figure
    before: Figure | None
    cells: tuple[Figure | None, ...]

    @property
    def title(self) -> str:
        return TITLES.get(self.figure.name, self.figure.name)

    @property
    def best(self) -> float | None:
        """The best value of any run; None where no two runs differ."""
        values = {cell.value for cell in self.cells if cell is not None and cell.value == cell.value}
        if len(values) < 2:
            return None
        return max(values) if self.figure.direction == "higher" else min(values)


def entries(comparison: Comparison) -> list[Entry]:
    """Every figure of any run; those of different versions stand apart."""
    kinds: list[Figure] = []
    for run in comparison.runs.values():
        for figure in run.scores.figures:
            if (
                figure.side == "after"
                and figure.name != "ua_attacked"
                and not any(figure.is_same(other) for other in kinds)
            ):
                kinds.append(figure)
    return [_entry(comparison, figure) for figure in kinds]


@dataclass(frozen=True)
class Difference:
    """What a run's figure has more than the first run's, paired by prompt and seed.

    `lost` and `gained` count the pairs that were yes in the first run and are no in this one, and the reverse; None of
    them where the images have values between yes and no. `p` is McNemar's exact one, or there that of permuted signs.
    """

    label: str
    figure: Figure
    change: Change
    lost: int | None
    gained: int | None
    p: float

    @property
    def is_share(self) -> bool:
        """Whether its images are yes or no."""
        return self.lost is not None

    @property
    def is_too_few(self) -> bool:
        """Whether so few pairs say nothing, whatever they show."""
        return self.change.n < LEAST

    @property
    def is_certain(self) -> bool:
        """Whether there are enough pairs, the interval of the change leaves 0 out, and the exact test agrees."""
        apart = self.change.low > 0 or self.change.high < 0
        return apart and self.p <= 0.05 and not self.is_too_few

    @property
    def is_better(self) -> bool:
        return (self.change.value > 0) == (self.figure.direction == "higher")


def differences(comparison: Comparison) -> list[Difference]:
    """Every figure of every other run against the first's, over the prompts that both measure by the same version."""
    found = []
    for label, run in list(comparison.runs.items())[1:]:
        for figure in comparison.first.scores.figures:
            other = next((one for one in run.scores.figures if one.side == "after" and one.is_same(figure)), None)
            if figure.side == "after" and other is not None:
                one, two = (_by_row(*pair) for pair in ((comparison.first, figure), (run, other)))
                if keys := [key for key in one if key in two]:
                    found.append(
                        _difference(label, figure, [one[key] for key in keys], other=[two[key] for key in keys])
                    )
    return found


def _difference(label: str, figure: Figure, first: Sequence[float], *, other: Sequence[float]) -> Difference:
    change = mean_change(first, other)
    if {*first, *other} - {0.0, 1.0}:
        return Difference(label, figure, change, None, None, sign_flips(first, other))
    test = mcnemar([bool(value) for value in first], [bool(value) for value in other])
    return Difference(label, figure, change, test.lost, test.gained, test.p)


def _by_row(run: Findings, figure: Figure) -> dict[tuple[str, int], float]:
    """Each image's value by its prompt and seed."""
    rows = {pair.after.id: pair.after.row.key for pair in run.pairs}
    return {rows[name]: value for name, value in figure.items.items() if name in rows}


def difference_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Every difference as plain values."""
    first = next(iter(comparison.runs))
    return [
        {
            "run": one.label,
            "against": first,
            "name": one.figure.name,
            "group": one.figure.group,
            **{key: getattr(one.change, key) for key in ("value", "low", "high", "n")},
            "lost": one.lost,
            "gained": one.gained,
            "p": one.p,
            "test": "McNemar, exact" if one.is_share else "permuted signs",
            "too_few": one.is_too_few,
        }
        for one in differences(comparison)
    ]


def points(comparison: Comparison) -> list[Point]:
    """Each run's erasure and retention, and those of the model before the edit where the runs share it."""
    found = [_point(label, run, side="after") for label, run in comparison.runs.items()]
    if comparison.is_of_one_base:
        found.append(_point(BASE, comparison.first, side="before"))
    return [point for point in found if point is not None]


def harm(comparison: Comparison) -> Matrix | None:
    """For each run, in how many of a concept's images the judge still sees it; None without a judge.

    Over runs of different targets it is the matrix of targets and concepts.
    """
    cells = {label: retained(run) for label, run in comparison.runs.items()}
    concepts = list(dict.fromkeys(concept for found in cells.values() for concept in found))
    if not concepts:
        return None
    rows = tuple(tuple(found.get(concept) for concept in concepts) for found in cells.values())
    own = frozenset((label, name) for label, run in comparison.runs.items() for name in run.task.names)
    return Matrix(tuple(cells), tuple(concepts), rows, (), own)


def comparison_table(comparison: Comparison) -> Table:
    """The figures with their intervals, for a terminal; the best of a row is bold."""
    shown = Table(title=f"{len(comparison.runs)} runs, after the edit", title_justify="left", header_style="bold")
    shown.add_column("score")
    shown.add_column("prompts")
    for heading in (BASE, *comparison.runs):
        shown.add_column(heading, justify="right", overflow="fold")
    shown.add_column("better")
    shown.add_row(TITLES["ua_attacked"], "erased", "-", *under_attack(comparison), "▲ higher")
    for entry in entries(comparison):
        best = entry.best
        cells = [Text(with_interval(cell), "bold" if cell and cell.value == best else "") for cell in entry.cells]
        before = number(entry.before) if entry.before else "-"
        arrow = "▲ higher" if entry.figure.direction == "higher" else "▼ lower"
        shown.add_row(entry.title, entry.figure.group, before, *cells, arrow)
    shown.caption = comparison.caution or None
    return shown


def under_attack(comparison: Comparison) -> list[str]:
    """Each run's UA under its strongest attack, whichever that was, or that it was not attacked."""
    found = [run.scores.find("ua_attacked") for run in comparison.runs.values()]
    return [f"{with_interval(one)}, {one.version}" if one else "not attacked" for one in found]


def comparison_records(comparison: Comparison) -> list[dict[str, Any]]:
    """Every figure of every run, one a row."""
    return [
        {"run": label, "method": run.edit.get("method"), **record}
        for label, run in comparison.runs.items()
        for record in figure_records(run.scores.figures)
    ]


def _entry(comparison: Comparison, figure: Figure) -> Entry:
    runs = comparison.runs.values()
    cells = [
        next((one for one in run.scores.figures if one.side == "after" and one.is_same(figure)), None) for run in runs
    ]
    befores = [run.scores.before(cell) for run, cell in zip(runs, cells, strict=True) if cell is not None]
    shared = befores[0] if befores and comparison.is_of_one_base and len(set(map(_value, befores))) == 1 else None
    return Entry(figure, shared, tuple(cells))


def _value(figure: Figure | None) -> float | None:
    return figure.value if figure else None


def _point(label: str, run: Findings, *, side: str) -> Point | None:
    erasure, *kept = (run.scores.find(name, side=side) for name in ("ua", "ira", "cra"))
    erasure = run.scores.find("ua_attacked", side=side) or erasure
    measured = [figure for figure in kept if figure is not None]
    if erasure is None or len(measured) < 2:
        return None
    retention = min(measured, key=lambda figure: figure.value)
    return Point(label, _bounded(retention), _bounded(erasure), is_base=side == "before")


def _bounded(figure: Figure) -> tuple[float, float, float]:
    return figure.value, figure.low, figure.high


def _refuse_other_rows(runs: Mapping[str, Sequence[tuple[str, int]]]) -> None:
    (one, left), (other, right) = ((label, set(rows)) for label, rows in runs.items())
    for label, only in ((one, left - right), (other, right - left)):
        if only:
            prompt, seed = min(only)
            raise RunConflict(
                f'{one} and {other} have different images: "{prompt}" with seed {seed} is in {label} only '
                f"({len(left ^ right)} differ in all); compare runs of the same prompts and seeds."
            )
