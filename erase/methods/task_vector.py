"""Task vector: the network is taught the concept, and what that changed is subtracted.

Paper: Pham et al., "Robust Concept Erasure Using Task Vectors", 2024, after Ilharco et al., "Editing Models with Task
Arithmetic", ICLR 2023: for weights W, and W_c after fine-tuning on images of the concept with the usual loss
|e_s(x_t, c) - e|^2,

    W' = W - scale (W_c - W)

Differences: the images are the finished latents of a bank of the concept's prompts, sampled by the model itself; how
far to go is given as `scale` instead of searched for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import BadOption
from erase.methods._presets import Presets, presets
from erase.methods.training.layers import Layers, check_layers
from erase.methods.training.pictures import picture_loss
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Model
from erase.task import Task


@dataclass(frozen=True)
class TaskVector(Trained):
    """Options of the task vector, beside those of all training.

    `scale`: how many times what was learnt is subtracted. `layers` as in ESD.
    """

    # Ours, for the paper fine-tunes a whole network and searches for its scale.
    presets: ClassVar[Presets] = presets(
        {"steps": 200, "learning_rate": 1e-5, "batch": 4, "scale": 1.0, "layers": "all"}
    )

    batch: int = 4
    scale: float = 1.0
    layers: Layers = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_layers("task_vector", self.layers)
        if not self.scale > 0:
            raise BadOption(f"task_vector: scale is {self.scale}; expected more than 0.")

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        bank = session.bank(session.plan((text, ()) for text, _ in session.asked))
        parameters = session.chosen(self.layers)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            clean, texts = bank.draw_clean(self.batch, generator)
            return picture_loss(session, clean, texts, generator=generator)

        session.train(parameters, loss)
        learnt = session.deltas(parameters)
        return session.edit(deltas={name: subtracted(delta, self.scale) for name, delta in learnt.items()})


def subtracted(learnt: Tensor, scale: float) -> Tensor:
    """What a weight changes by when what it learnt is taken away `scale` times."""
    return -scale * learnt
