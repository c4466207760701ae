"""Scores of a run's images: figures with intervals, what the judge saw in each image, which images are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from erase import registry
from erase.config import documents
from erase.errors import ScoreFailed
from erase.evaluate.gate import Limits
from erase.evaluate.images import ScoredImage, split_readable
from erase.evaluate.judge_cache import JudgeCache
from erase.evaluate.judges import ImageJudge
from erase.evaluate.metrics.figure import Figure
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

    def below(self, bounds: Mapping[str, float]) -> list[str]:
        """What a gate of these bounds has against the figures after the edit, by their names."""
        failed = []
        for name, bound in bounds.items():
            figure = self.find(name)
            if figure is None or not figure.value >= bound:  # not a number is not enough either
                value = f"{figure.value:.3f}" if figure else "not measured"
                failed.append(f"{name} is {value}, at least {bound} is asked")
        if "ua" in bounds and self.unmeasured:
            failed.append(f"whether a target is gone was not measured: {self.unmeasured}")
        return failed

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


def networks_of(scorers: Sequence[str]) -> tuple[str, ...]:
    """The judge's networks, by their folders in it, that scorers of these names ask; raises UnknownName."""
    asked = [network for name in scorers for network in _class(name).reads]
    return tuple(dict.fromkeys(asked))


def score(
    task: Task,
    shots: Sequence[ScoredImage],
    *,
    scorers: Sequence[str],
    judge: Path | ImageJudge | None,
    readings: JudgeCache | None = None,
) -> Scores:
    """The scores of the images by the scorers of these names; what `readings` hold is not read again.

    `judge` is the folder of a judge that a model comes with, or who judges in its place.

    Raises UnknownName, and ScoreFailed if there is nothing to score with, no image, or a scorer fails.
    """
    if judge is None:
        raise ScoreFailed("the model comes without a judge; give a CLIP to judge by.")
    who = judge if isinstance(judge, ImageJudge) else ImageJudge.embedded(judge)
    if not shots:
        raise ScoreFailed("there are no images to score; run `erase generate` first.")
    readable, missing = split_readable(shots)
    if not readable:
        raise ScoreFailed(f"none of the {len(shots)} images can be read; run `erase generate` anew.")
    pixels = {shot.id: one for shot, one in readable}
    readings = readings or JudgeCache()
    measured = [_class(name)(who, readings)(task, shots, pixels) for name in scorers]
    return Scores(
        figures=tuple(figure for part in measured for figure in part.figures),
        verdicts={name: seen for part in measured for name, seen in part.verdicts.items()},
        missing=tuple(shot.id for shot in missing),
        protocol=f"canvas/{who.name}",
        images={shot.id: hash_if_there(shot.path) if shot.id in pixels else "" for shot in shots},
    )


def _class(name: str) -> Any:
    return registry.load("scores", name)
