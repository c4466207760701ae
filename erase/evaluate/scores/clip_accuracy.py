"""CLIP accuracy: the share of the targets' images that are nearer to the target's prompt than to the anchor's.

As in Concept Ablation (Kumari et al. 2023): 1 before a good erasure, 0 after it. By the judge's own CLIP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from erase.config.prompts import Row
from erase.evaluate.images import SIDES, ScoredImage, target_of
from erase.evaluate.judge_cache import JudgeCache
from erase.evaluate.judges import ImageJudge
from erase.evaluate.metrics.figure import Measured, rate
from erase.evaluate.networks.clip import ClipTowers
from erase.task import Target, Task

VERSION = "clip-accuracy/emoji-judge-v1"


@dataclass(frozen=True)
class ClipAccuracy:
    """Share of erased images nearer to the target than to its anchor."""

    judge: ImageJudge
    readings: JudgeCache = field(default_factory=JudgeCache)

    reads: ClassVar = ("clip",)

    def __call__(self, task: Task, shots: Sequence[ScoredImage], pixels: Mapping[str, Tensor]) -> Measured:
        erased = [shot for shot in shots if shot.group == "erased"]
        network = self.judge.clip
        is_cut = self.readings.towers(network).is_cut
        pairs = {shot.id: text_pair(shot.row, target_of(shot.row, task), is_cut) for shot in erased}
        images = self.readings.vectors(network, {shot.id: pixels[shot.id] for shot in erased if shot.id in pixels})
        texts = self.readings.towers(network).texts([text for pair in pairs.values() for text in pair], cut=True)
        figures = []
        for side in SIDES:
            chosen = [shot for shot in erased if shot.side == side]
            items = {shot.id: _nearer(images.get(shot.id), texts, pairs[shot.id]) for shot in chosen}
            concepts = {shot.id: target_of(shot.row, task).name for shot in chosen}
            if items:
                figures.append(
                    rate(
                        items,
                        concepts,
                        name="clip_accuracy",
                        group="erased",
                        side=side,
                        direction="lower",
                        version=VERSION,
                    )
                )
        return Measured(tuple(figures))


def check_names(clip: Path, task: Task) -> None:
    """Raises ScoreFailed for a target or an anchor that a judge's CLIP does not read to its end."""
    ClipTowers(clip).check([name for target in task.targets for name in (target.name, target.anchor)])


def text_pair(row: Row, target: Target, is_cut: Callable[[str], bool] = lambda text: False) -> tuple[str, str]:
    """The prompt with the target and with its anchor in the target's place.

    The bare names if no word is found, or if the CLIP reads the beginning of the prompt alone, which may name none.
    """
    for word in () if is_cut(row.prompt) else target.words:
        pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
        if pattern.search(row.prompt):
            return row.prompt, " ".join(pattern.sub(lambda _: target.anchor, row.prompt).split())
    return target.name, target.anchor


def _nearer(image: Tensor | None, texts: Mapping[str, Tensor], pair: tuple[str, str]) -> float:
    if image is None:
        return 1.0
    return float(image @ texts[pair[0]] > image @ texts[pair[1]])
