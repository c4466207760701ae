"""The shares of labels that CLIP sees in fresh images, for methods that answer what they see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from erase.edit import Edit
from erase.errors import ScoreFailed
from erase.evaluate.detectors.clip_zero_shot import ClipZeroShot
from erase.evaluate.generate import sample
from erase.evaluate.sampler import Sampler
from erase.models import Model
from erase.prompts import Row


def observe(
    model: Model,
    edit: Edit | None,
    prompts: Sequence[str],
    *,
    labels: Sequence[str],
    images: int,
    clip: str = "",
    template: str = "{}",
) -> list[list[float]]:
    """Shares [prompts][labels]: of how many of a prompt's images each label is the one that CLIP finds likeliest.

    Images have the seeds from 0 on, so that those under two edits are paired. `clip` is a folder, "" the CLIP of the
    model's own judge. Raises ScoreFailed if there is none, PromptTooLong, BadModel.
    """
    model.check_sampling()
    model.check_prompts(prompts)
    judge = model.judge_folder
    if not clip and judge is None:
        raise ScoreFailed(f"{model.path.name} comes without a judge; give the folder of a CLIP to label images by.")
    classify = ClipZeroShot(Path(clip) if clip or judge is None else judge / "clip", tuple(labels), template=template)
    rows = [Row(prompt, seed) for prompt in dict.fromkeys(prompts) for seed in range(images)]
    seen: dict[str, Counter[str]] = {prompt: Counter() for prompt in prompts}
    for row, image in sample(model, rows, Sampler(), edit=edit):
        seen[row.prompt][classify([image])[0][0].label] += 1
    return [[seen[prompt][label] / images for label in labels] for prompt in prompts]
