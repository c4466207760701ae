"""LECO: a low-rank adapter that learns to erase a concept, or to strengthen it, and ships as a LoRA.

Code of the idea: p1atdev/LECO (Apache-2.0), after ESD (Gandikota et al. 2023) and with the loss of Concept Sliders
(Gandikota et al., ECCV 2024, eq. 7):

    L = | e_s(x_t, c) - (e_n - g (e_p - e_0)) |^2

for target prompt c, `neutral` n, `positive` p and the empty prompt 0; plus g instead of minus to enhance. A slider
(`action: both`) learns, in turn, to erase at strength 1 and to enhance from the prompt itself at strength -1, with
the adapter's addition turned round, so that one edit goes both ways. Differences:
- LECO's file names a neutral, a positive, a g and an action for each target prompt, the empty prompt where it names no
  neutral; here each prompt's neutral is the same prompt with the target's anchor, the rest is the same for all;
- x_t and all three predictions come from the frozen network's bank, x_t again with the adapter on every `refresh`
  steps; LECO samples a trajectory for each step, with the adapter on, and predicts twice as much as it uses;
- each x_t is asked for at its own time; LECO asks at one 19 of 1000 noisier;
- trained in float32 at one size, where LECO has bfloat16 and, if asked, sizes and crops that vary;
- `layers` chooses layers by their own names; LECO filters their parents', by which two of its choices are empty and a
  third is all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import SAMPLED, Presets, presets
from erase.methods.training.adapters import Adapters
from erase.methods.training.bank import ALSO, EMPTY, PROMPTED
from erase.methods.training.layers import Layers, chosen_modules
from erase.methods.training.refresh import Refresh
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Model
from erase.options import Count, Positive, Whole
from erase.task import Task


@dataclass(frozen=True)
class LoRA(Trained):
    """Options of LECO, beside those of all training.

    `action`: `erase`, `enhance`, or `both`: erases at strength 1 and enhances at -1. `guidance`: g; more goes further.
    `neutral`: where all targets go from; empty for each prompt's own, which if `anchored` is the prompt with the
    target's anchor, else (and to enhance) the empty one. `positive`: what they go away from; empty for the target.
    `renormalised`: whether what is learnt is brought to the size of where it goes from, which keeps contrast.
    `rank`, `alpha`: of the adapter, multiplied by alpha / rank. `layers`: of the transformer blocks, as in ESD.
    `refresh`: steps between two samplings of the bank with the adapter on, 0 for none.
    """

    # LECO's, for everything; the decay is that of its optimiser where none is named.
    presets: ClassVar[Presets] = presets(
        {**SAMPLED, "steps": 500, "learning_rate": 1e-4, "batch": 1, "weight_decay": 0.01}
        | {"rank": 4, "alpha": 1.0, "guidance": 1.0, "layers": "all"}
    )

    steps: int = 500
    learning_rate: float = 1e-4
    action: Literal["erase", "enhance", "both"] = "erase"
    renormalised: bool = False
    guidance: Positive = 1.0
    anchored: bool = True
    neutral: str = ""
    positive: str = ""
    rank: Count = 4
    alpha: Positive = 1.0
    layers: Layers = "all"
    refresh: Whole = 0

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        bank = session.bank(session.plan(self._asked(session.asked)))
        modules = chosen_modules(session.denoiser.network, self.layers, blocks=True)
        adapters = Adapters.on(
            modules, rank=self.rank, alpha=self.alpha, seed=self.seed, device=session.denoiser.machine.device
        )
        refresh = Refresh.of(session, bank, self.refresh, frozen=adapters.off)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn = refresh.bank.draw(self.batch, generator)
            enhances = self.action == "enhance" or (self.action == "both" and step % 2 == 1)
            adapters.strength = -1.0 if enhances and self.action == "both" else 1.0
            predicted = session.denoiser.predict(drawn.inputs, drawn.times, session.given(drawn.prompts))
            neutral, positive = self._chosen(drawn.predictions)
            if enhances and self.action == "both":
                neutral = drawn.predictions[PROMPTED]
            aim = leco_aim(
                neutral, positive, empty=drawn.predictions[EMPTY], away=-self.guidance if enhances else self.guidance
            )
            return torch.nn.functional.mse_loss(predicted, resized(aim, neutral) if self.renormalised else aim)

        def after(step: int) -> None:
            adapters.strength = 1.0
            refresh.after(step)

        with adapters.attached():
            session.train(adapters.parameters, loss, state=refresh.state, after=after)
        return session.edit(low_rank=session.low_rank(adapters))

    def _asked(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
        """Each prompt of the targets and what is asked beside it: its neutral unless all are empty, the positive."""
        is_own = self.anchored and self.action != "enhance" and not self.neutral
        chosen = [(text, anchor if is_own else self.neutral) for text, anchor in pairs]
        shared = (self.positive,) if self.positive else ()
        return [(text, (neutral, *shared) if any(one for _, one in chosen) else shared) for text, neutral in chosen]

    def _chosen(self, predictions: Tensor) -> tuple[Tensor, Tensor]:
        """The frozen predictions for the neutral and the positive, of all that were asked [2 and further, ...]."""
        also = predictions[ALSO:]
        neutral = also[0] if len(also) > bool(self.positive) else predictions[EMPTY]
        return neutral, also[-1] if self.positive else predictions[PROMPTED]


def leco_aim(neutral: Tensor, positive: Tensor, *, empty: Tensor, away: float) -> Tensor:
    """What is learnt: `neutral - away (positive - empty)`."""
    return neutral - away * (positive - empty)


def resized(aim: Tensor, like: Tensor) -> Tensor:
    """Each prediction of a batch at the size of another."""
    now, wanted = (one.flatten(1).norm(dim=1).view(-1, *[1] * (one.dim() - 1)) for one in (aim, like))
    found: Tensor = aim * (wanted / now.clamp(min=torch.finfo(aim.dtype).tiny))
    return found
