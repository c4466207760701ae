"""What tests of trained methods share: a task, a few steps, predictions on latents that training never saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from erase.edit import Edit
from erase.methods.training.denoiser import Denoiser
from erase.models import Condition, Model
from erase.task import Target, Task

STYLE = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),))
OLD, NEW = "a cat in noto style", "a cat in blob style"
FEW: dict[str, Any] = {"steps": 4, "batch": 2, "trajectories": 2, "sampling_steps": 4, "learning_rate": 1e-3}
MANY: dict[str, Any] = FEW | {"steps": 60, "batch": 4, "learning_rate": 3e-3}


def seen(count: int) -> Tensor:
    """Some predictions in float64, [count, 2, 4, 5, 5]."""
    return torch.randn(count, 2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


def square(one: Tensor, other: Tensor) -> float:
    """The mean squared distance, number by number."""
    pairs = list(zip(one.flatten().tolist(), other.flatten().tolist(), strict=True))
    return sum((left - right) ** 2 for left, right in pairs) / len(pairs)


@torch.no_grad()
def predictions(model: Model, text: str, edit: Edit | None = None) -> Tensor:
    """What the edited network predicts for a prompt, on noise at eight times."""
    pipe = model.pipeline()
    if edit is not None:
        edit.apply(pipe)
    denoiser = Denoiser.from_pipe(model, pipe)
    inputs = torch.randn(8, *denoiser.shape, generator=torch.Generator().manual_seed(9))
    given = Condition.stack(model.encode([text] * 8).conditions())
    return denoiser.predict(inputs, torch.arange(100, 900, 100), given)
