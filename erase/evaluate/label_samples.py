"""The shares of labels that CLIP sees in fresh images, for methods that answer what they see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from erase.config.prompts import Row
from erase.edit import Edit
from erase.errors import ScoreFailed
from erase.evaluate.detectors.clip_zero_shot import ClipZeroShot
from erase.models import Model
from erase.sampling.generate import sample
from erase.sampling.sampler import Sampler


@dataclass(frozen=True)
class Observer:
    """Looks at images of a model under one edit after another; the pipeline and each CLIP are loaded once."""

    model: Model
    _classifiers: dict[tuple[object, ...], ClipZeroShot] = field(default_factory=dict)

    @cached_property
    def _pipe(self) -> Any:
        return self.model.pipeline()

    def __call__(
        self,
        edit: Edit | None,
        prompts: Sequence[str],
        *,
        labels: Sequence[str],
        images: int,
        clip: str = "",
        template: str = "{}",
    ) -> list[list[float]]:
        """Shares [prompts][labels]: of how many of a prompt's images each label is the one that CLIP finds likeliest.

        Images have the seeds from 0 on, so that those under two edits are paired. `clip` is a folder, "" the CLIP of
        the model's own judge. Raises ScoreFailed if there is none or a label is too long for it, PromptTooLong and
        BadModel.
        """
        self.model.check_sampling()
        self.model.check_prompts(prompts)
        classify = self._classifier(clip, tuple(labels), template)
        rows = [Row(prompt, seed) for prompt in dict.fromkeys(prompts) for seed in range(images)]
        seen: dict[str, Counter[str]] = {prompt: Counter() for prompt in prompts}
        for row, image in sample(self.model, rows, Sampler(), edit=edit, pipe=self._pipe):
            seen[row.prompt][classify([image])[0][0].label] += 1
        return [[seen[prompt][label] / images for label in labels] for prompt in prompts]

    def _classifier(self, clip: str, labels: tuple[str, ...], template: str) -> ClipZeroShot:
        judge = self.model.judge_folder
        if not clip and judge is None:
            raise ScoreFailed(
                f"{self.model.path.name} comes without a judge; give the folder of a CLIP to label images by."
            )
        if (key := (clip, labels, template)) not in self._classifiers:
            folder = Path(clip) if clip or judge is None else judge / "clip"
            self._classifiers[key] = ClipZeroShot(folder, labels, template=template)
            self._classifiers[key].check(labels)
        return self._classifiers[key]
