"""Scores of a run's images: figures with intervals, what the judge saw in each image, which images are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from erase.config import documents
from erase.errors import ScoreFailed
from erase.evaluate.detections import examine
from erase.evaluate.detectors.judge import DOMAINS, Judge
from erase.evaluate.gate import Limits
from erase.evaluate.images import ScoredImage
from erase.evaluate.judges import check_labels
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.metrics.figures import accuracies, canvas
from erase.files import content_hash, hash_if_there
from erase.task import Task

PROTOCOL = "canvas/emoji-v1"


@dataclass(frozen=True)
class Scores:
    """All figures of a run; `verdicts` by image, and `missing`, the images that could not be read.

    `images` holds the SHA-256 of every image's file as it was scored, by the image's name, "" for one that was missing.
    """

    figures: tuple[Figure, ...]
    verdicts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    protocol: str = PROTOCOL
    images: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str, *, side: str = "after", group: str | None = None) -> Figure | None:
        """The figure of this name, side and group, if it was measured."""
        for figure in self.figures:
            if figure.name == name and figure.side == side and group in (None, figure.group):
                return figure
        return None

    def before(self, after: Figure) -> Figure | None:
        """The same figure of the side before the edit."""
        return next((one for one in self.figures if one.side == "before" and one.is_same(after)), None)

    @property
    def unmeasured(self) -> str:
        """Why nothing says whether the targets are gone; "" if something does, or if nothing was scored at all."""
        if not any(figure.group == "erased" for figure in self.figures):
            return "no prompt names a target" if self.figures else ""
        if (before := self.find("ua", side="before")) is None:
            return ""
        shown = sum(value == 0 and name not in self.missing for name, value in before.items.items())
        if shown >= (least := Limits().shown) * before.n:
            return ""
        return f"the base model itself shows the target in only {shown} of {before.n} images, {least:.0%} are needed"

    def to_json(self) -> dict[str, Any]:
        """Plain values, with a digest by which a change made by hand is noticed."""
        value = asdict(self)
        return value | {"digest": content_hash(value)}

    @staticmethod
    def from_json(value: Any) -> Scores:
        """The scores that `to_json` gave; raises ScoreFailed on anything else."""
        if not isinstance(value, Mapping) or "digest" not in value:
            raise ScoreFailed("no scores with a digest: damaged, or of an earlier version; run `erase score` anew.")
        scores = {key: part for key, part in value.items() if key != "digest"}
        if content_hash(scores) != value["digest"]:
            raise ScoreFailed("the scores were changed since they were measured; run `erase score` anew.")
        found: Scores = documents.check_value(scores, Scores, key="scores", error=ScoreFailed)
        return found


def score(task: Task, shots: Sequence[ScoredImage], *, judge: Path | None) -> Scores:
    """UA, IRA, CRA and accuracies of images by the judge in a folder, which a model comes with.

    Raises ScoreFailed if there is no judge, no image, or a label that the judge does not know.
    """
    if judge is None:
        raise ScoreFailed("the model comes without a judge; give a CLIP to judge by.")
    if not shots:
        raise ScoreFailed("there are no images to score; run `erase generate` first.")
    check_labels(judge, [shot.row for shot in shots])
    found = examine(Judge(judge), {shot.id: shot.path for shot in shots}, name="judge")
    verdicts = {
        name: {domain: next(one.label for one in seen if one.domain == domain) for domain in DOMAINS}
        for name, seen in found.items()
        if seen is not None
    }
    if not verdicts:
        raise ScoreFailed(f"none of the {len(shots)} images can be read; run `erase generate` anew.")
    return Scores(
        figures=(*canvas(task, shots, verdicts), *accuracies(task, shots, verdicts)),
        verdicts=verdicts,
        missing=tuple(shot.id for shot in shots if shot.id not in verdicts),
        images={shot.id: hash_if_there(shot.path) if shot.id in verdicts else "" for shot in shots},
    )
