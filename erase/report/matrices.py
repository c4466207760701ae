"""Heat maps: what each concept is taken for since the edit, and which cells of the square the edit reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from erase.evaluate.images import ScoredImage
from erase.report.findings import Findings
from erase.report.grid import Pair

NO_IMAGE = "no image"


@dataclass(frozen=True)
class Cell:
    """Shares of a cell's images before and after the edit, and how many they are of."""

    before: float
    after: float
    n: int

    @property
    def change(self) -> float:
        """How the share moved, -1 .. 1."""
        return self.after - self.before


@dataclass(frozen=True)
class Matrix:
    """A heat map: its cells by row and column, None where there are no images.

    `targets` are the rows erased; `own` the cells, by row and column, of what a row's own edit erases.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    targets: tuple[str, ...]
    own: frozenset[tuple[str, str]] = frozenset()


def interference(findings: Findings) -> Matrix | None:
    """For each concept that prompts name, as what the judge sees it: targets first; None without a judge."""
    domain = findings.task.domain
    asked = _asked(findings, domain)
    judged = [pair for pair in findings.pairs if domain in pair.after.row.labels]
    shots = [shot for pair in judged for shot in (pair.before, pair.after)]
    if not findings.scores.verdicts or not asked:
        return None
    seen = {saw(findings, shot, domain) for shot in shots}
    columns = [*asked, *sorted(seen - {*asked, NO_IMAGE}), *([NO_IMAGE] if NO_IMAGE in seen else [])]

    def cell(row: str, column: str) -> Cell | None:
        pairs = [pair for pair in judged if pair.after.row.labels[domain] == row]
        return _cell(pairs, lambda shot: saw(findings, shot, domain) == column)

    return _matrix(findings, asked, columns, cell=cell)


def square(findings: Findings) -> Matrix | None:
    """Of each concept beside each of the other domain: how many images show all that their prompt names."""
    domain, other = findings.task.domain, findings.other_domain
    crossed = [pair for pair in findings.pairs if {domain, other} <= set(pair.after.row.labels)]
    if not findings.scores.verdicts or not crossed:
        return None
    rows = [name for name in _asked(findings, domain) if any(pair.after.row.labels[domain] == name for pair in crossed)]
    columns = list(dict.fromkeys(pair.after.row.labels[other] for pair in crossed))

    def cell(row: str, column: str) -> Cell | None:
        return _intact(findings, {domain: row, other: column})

    return _matrix(findings, rows, columns, cell=cell)


def retained(findings: Findings) -> dict[str, Cell]:
    """By concept of the task's domain: in how many of its images the judge sees it."""
    if not findings.scores.verdicts:
        return {}
    domain = findings.task.domain
    cells = {name: _intact(findings, {domain: name}) for name in _asked(findings, domain)}
    return {name: cell for name, cell in cells.items() if cell}


def saw(findings: Findings, shot: ScoredImage, domain: str) -> str:
    """What the judge saw in an image in a domain."""
    return findings.scores.verdicts.get(shot.id, {}).get(domain, NO_IMAGE)


def _asked(findings: Findings, domain: str) -> list[str]:
    """The concepts that prompts name in a domain: targets first, then in the plan's order."""
    named = dict.fromkeys(pair.after.row.labels.get(domain, "") for pair in findings.pairs)
    targets = [name for name in findings.task.names if name in named]
    return [*targets, *(name for name in named if name and name not in targets)]


def _intact(findings: Findings, labels: Mapping[str, str]) -> Cell | None:
    """In how many of the images whose prompt has these labels the judge sees them all."""
    pairs = [pair for pair in findings.pairs if labels.items() <= dict(pair.after.row.labels).items()]
    return _cell(pairs, lambda shot: all(saw(findings, shot, domain) == word for domain, word in labels.items()))


def _cell(pairs: Sequence[Pair], counts: Callable[[ScoredImage], bool]) -> Cell | None:
    if not pairs:
        return None
    before, after = sum(counts(pair.before) for pair in pairs), sum(counts(pair.after) for pair in pairs)
    return Cell(before / len(pairs), after / len(pairs), len(pairs))


def _matrix(
    findings: Findings, rows: Sequence[str], columns: Sequence[str], *, cell: Callable[[str, str], Cell | None]
) -> Matrix:
    cells = tuple(tuple(cell(row, column) for column in columns) for row in rows)
    return Matrix(tuple(rows), tuple(columns), cells, findings.task.names)
