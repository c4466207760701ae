"""What a report is made of: a run's task, pairs of images, scores, recipe and edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from erase.evaluate.gate import Verdict
from erase.evaluate.images import ScoredImage
from erase.evaluate.score import Scores
from erase.report.grid import Pair
from erase.report.table import scores_html
from erase.task import Task


@dataclass(frozen=True)
class Findings:
    """All that one run has found.

    `recipe` is the resolved recipe and `edit` what the edit says of itself, both as plain values; `bounds` are the
    gate's, by figure; `proved` is the gate's verdict where it was reached on more than these; `date` is when it was
    measured, as text.
    """

    name: str
    task: Task
    pairs: tuple[Pair, ...]
    scores: Scores
    recipe: Mapping[str, Any]
    edit: Mapping[str, Any]
    bounds: Mapping[str, float] = field(default_factory=dict)
    proved: Verdict | None = None
    date: str = ""

    def _repr_html_(self) -> str:
        """The figures as a table, which notebooks show."""
        return scores_html(self.scores)

    @property
    def is_veiled(self) -> bool:
        """Whether its images are shown only to those who ask for them."""
        return any(target.kind == "unsafe" for target in self.task.targets)

    @property
    def other_domain(self) -> str:
        """The domain that the task does not touch: `object` of a style's erasure, else `style`."""
        return "object" if self.task.domain == "style" else "style"

    @cached_property
    def judged(self) -> frozenset[str]:
        """The domains in which the judge has seen concepts."""
        return frozenset(domain for seen in self.scores.verdicts.values() for domain in seen)

    @property
    def rows(self) -> tuple[tuple[str, int], ...]:
        """Every prompt with its seed, sorted."""
        return tuple(sorted(pair.after.row.key for pair in self.pairs))

    def values(self, shot: ScoredImage) -> dict[str, float]:
        """An image's own value in every figure that it counts in."""
        return self._values.get(shot.id, {})

    def is_missing(self, shot: ScoredImage) -> bool:
        return shot.id in self.scores.missing or not shot.path.is_file()

    @cached_property
    def _values(self) -> dict[str, dict[str, float]]:
        values: dict[str, dict[str, float]] = {}
        for figure in self.scores.figures:
            for identity, value in figure.items.items():
                values.setdefault(identity, {})[figure.name] = value
        return values
