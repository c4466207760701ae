"""CLIP score: 100 times the cosine of an image and its prompt, by the judge's CLIP.

Not comparable with scores of another CLIP; `version` names it. A missing image has the worst score: 0, or 100 where
lower is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from erase.evaluate.images import GROUPS, SIDES, ScoredImage
from erase.evaluate.judge_cache import JudgeCache
from erase.evaluate.judges import ImageJudge
from erase.evaluate.metrics.figure import Direction, Measured, mean
from erase.task import Task

VERSION = "clip/emoji-judge-x100-v1"


@dataclass(frozen=True)
class Clip:
    """Mean CLIP score by group and side."""

    judge: ImageJudge
    readings: JudgeCache = field(default_factory=JudgeCache)

    reads: ClassVar = ("clip",)

    def __call__(self, task: Task, shots: Sequence[ScoredImage], pixels: Mapping[str, Tensor]) -> Measured:
        network = self.judge.clip
        images = self.readings.vectors(network, pixels)
        texts = self.readings.towers(network).texts([shot.row.prompt for shot in shots], cut=True)
        version = VERSION if self.judge.folder else f"clip/{network.name}-x100-v1"
        figures = []
        for group in GROUPS:
            direction: Direction = "lower" if group == "erased" else "higher"
            worst = 100.0 if direction == "lower" else 0.0
            for side in SIDES:
                chosen = [shot for shot in shots if shot.group == group and shot.side == side]
                items = {
                    shot.id: 100 * float(images[shot.id] @ texts[shot.row.prompt]) if shot.id in images else worst
                    for shot in chosen
                }
                if items:
                    figures.append(
                        mean(items, name="clip", group=group, side=side, direction=direction, version=version)
                    )
        return Measured(tuple(figures))
