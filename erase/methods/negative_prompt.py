"""Negative prompt: guidance starts from the concept instead of from the empty prompt.

    e = e_n + g (e_p - e_n)

where the states of n go from the empty prompt's (strength 0) to those of the targets' words (strength 1). The oldest
guard, and the baseline of all others: no paper is its own, no weight changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from erase.edit import Edit, describe
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_text
from erase.models import Condition, Model
from erase.sampling.guides import CFG, Guide, GuidedBatch, NoGuide, PromptBatch
from erase.task import Task


@dataclass(frozen=True)
class NegativePrompt:
    """Options of the negative prompt.

    `text`: what stands there; empty for the words of all targets.
    """

    # The words of the targets, for everything.
    presets: ClassVar[Presets] = presets({"text": ""})

    text: str = ""

    def __call__(self, model: Model, task: Task) -> Edit:
        model.check_prompts([self.text or concept_text(model, task)])
        return Edit(describe(self, model, task), guidance=True)

    def guide(self, model: Model, task: Task, *, strength: float) -> Guide:
        """What starts guidance elsewhere."""
        return Away(model.encode([self.text or concept_text(model, task)]).conditions()[0], strength)


@dataclass(frozen=True)
class Away(NoGuide):
    """Guidance from another text's condition."""

    condition: Condition
    strength: float

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        return CFG(replace(batch, empty=batch.empty.toward(self.condition, self.strength)))
