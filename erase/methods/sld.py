"""Safe Latent Diffusion: each step is also guided away from the concept, where it comes near.

Paper: Schramowski et al., "Safe Latent Diffusion: Mitigating Inappropriate Degeneration", CVPR 2023.
With predictions e_0 for the empty prompt, e_p for the prompt, e_S for the concept's words, element by element:

    mu    = min(1, scale |e_p - e_S|) where e_p - e_S < threshold, else 0
    gamma = mu (e_S - e_0) + momentum_scale nu,    nu' = momentum nu + (1 - momentum) gamma
    e     = e_0 + g (e_p - e_0 - gamma)

with gamma left out of the first `warm_up` steps. Official code: ml-research/safe-latent-diffusion (MIT), whose medium
setting the defaults are. Differences from it: S is the task's words instead of a list of unsafe ones; a scale below 1
guides the less, where there it switches all off; strength multiplies gamma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.edit import Edit, describe
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_text
from erase.models import Condition, Model
from erase.options import Decay, NotNegative, Options, Whole
from erase.sampling.guides import Ask, Guide, GuidedBatch, NoGuide, PromptBatch
from erase.task import Task


@dataclass(frozen=True)
class SLD(Options):
    """Options of SLD.

    `scale`, `threshold`: more guides away more, and in more places. `warm_up`: steps before it begins, which keep the
    composition. `momentum_scale`, `momentum`: how much of the past is added, and how long it lasts.
    """

    # The paper's medium setting, and its strong one for nudity. Both are for unsafe content: the others are ours.
    presets: ClassVar[Presets] = presets(
        {"scale": 1000.0, "threshold": 0.01, "warm_up": 10, "momentum_scale": 0.3, "momentum": 0.4},
        nsfw={"scale": 2000.0, "threshold": 0.025, "warm_up": 7, "momentum_scale": 0.5, "momentum": 0.7},
    )

    scale: NotNegative = 1000.0
    threshold: float = 0.01
    warm_up: Whole = 10
    momentum_scale: NotNegative = 0.3
    momentum: Decay = 0.4

    def __call__(self, model: Model, task: Task) -> Edit:
        concept_text(model, task)
        return Edit(describe(self, model, task), guidance=True)

    def guide(self, model: Model, task: Task, *, strength: float) -> Guide:
        """What guides away from the task's words."""
        return Steering(self, model.encode([concept_text(model, task)]).conditions()[0], strength)


@dataclass(frozen=True)
class Steering(NoGuide):
    """Guidance away from a text's condition."""

    options: SLD
    condition: Condition
    strength: float

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        return Steered(self, batch)


@dataclass
class Steered:
    """The sampling of one batch, with its momentum."""

    steering: Steering
    batch: PromptBatch
    past: Tensor | float = 0.0

    def predict(self, ask: Ask, step: int) -> Tensor:
        concept = self.batch.given.toward(self.steering.condition, 1.0)
        empty, prompted, unsafe = ask([self.batch.empty, self.batch.given, concept])
        options = self.steering.options
        away = safety(empty, prompted, unsafe, past=self.past, options=options)
        self.past = options.momentum * self.past + (1 - options.momentum) * away
        if step < options.warm_up:
            return empty + self.batch.guidance * (prompted - empty)
        return empty + self.batch.guidance * (prompted - empty - self.steering.strength * away)


def safety(empty: Tensor, prompted: Tensor, unsafe: Tensor, *, past: Tensor | float, options: SLD) -> Tensor:
    """gamma: what is taken from guidance."""
    difference = prompted - unsafe
    near = (options.scale * difference.abs()).clamp(max=1.0)
    mu = torch.where(difference < options.threshold, near, torch.zeros_like(near))
    return mu * (unsafe - empty) + options.momentum_scale * past
