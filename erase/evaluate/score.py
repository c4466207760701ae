"""Scores of a run's images: figures with intervals, what the judge saw in each image, which images are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from erase import names
from erase.errors import ScoreFailed
from erase.evaluate.figures import Figure
from erase.evaluate.readings import Readings
from erase.evaluate.shots import Shot, split_readable
from erase.task import Task

PROTOCOL = "canvas/emoji-v1"


@dataclass(frozen=True)
class Scores:
    """All figures of a run; `verdicts` by image, and `missing`, the images that could not be read."""

    figures: tuple[Figure, ...]
    verdicts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    protocol: str = PROTOCOL

    def find(self, name: str, *, side: str = "after", group: str | None = None) -> Figure | None:
        """The figure of this name, side and group, if it was measured."""
        for figure in self.figures:
            if figure.name == name and figure.side == side and group in (None, figure.group):
                return figure
        return None

    def _repr_html_(self) -> str:
        """The figures as a table, which notebooks show."""
        from erase.evaluate.report.notebook import scores_html

        return scores_html(self)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Scores:
        """The scores that `to_json` gave; raises ScoreFailed on anything else."""
        try:
            figures = tuple(Figure(**figure) for figure in value["figures"])
            return Scores(figures, value["verdicts"], tuple(value["missing"]), value["protocol"])
        except (KeyError, TypeError) as error:
            raise ScoreFailed(f"scores are damaged ({error}); run `erase score` anew.") from error


def networks_of(scorers: Sequence[str]) -> tuple[str, ...]:
    """The judge's networks, by their folders in it, that scorers of these names ask; raises UnknownName."""
    asked = [network for name in scorers for network in _class(name).reads]
    return tuple(dict.fromkeys(asked))


def score(
    task: Task, shots: Sequence[Shot], *, scorers: Sequence[str], judge: Path | None, readings: Readings | None = None
) -> Scores:
    """The scores of the images by the scorers of these names; what `readings` hold is not read again.

    Raises UnknownName, and ScoreFailed if there is nothing to score with, no image, or a scorer fails.
    """
    if judge is None:
        raise ScoreFailed("the model comes without a judge; scores need one in its folder judge/.")
    if not shots:
        raise ScoreFailed("there are no images to score; run `erase generate` first.")
    readable, missing = split_readable(shots)
    if not readable:
        raise ScoreFailed(f"none of the {len(shots)} images can be read; run `erase generate` anew.")
    pixels = {shot.id: one for shot, one in readable}
    readings = readings or Readings()
    measured = [_class(name)(judge, readings)(task, shots, pixels) for name in scorers]
    return Scores(
        figures=tuple(figure for part in measured for figure in part.figures),
        verdicts={name: seen for part in measured for name, seen in part.verdicts.items()},
        missing=tuple(shot.id for shot in missing),
    )


def _class(name: str) -> Any:
    return names.load("scores", name)
