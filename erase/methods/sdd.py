"""Safe self-distillation: under the concept's prompt the network learns its own prediction for the empty prompt.

Paper: Kim et al., "Towards Safe Self-Distillation of Internet-Scale Text-to-Image Diffusion Models", ICML 2023 workshop
on generative AI and law:

    L = | e_s(x_t, c) - stopgrad e_s(x_t, empty) |^2

where the trained network's moving average samples x_t and is what is kept. Official code: nannullna/safe-diffusion.
Differences from it:
- x_t come from a bank that is sampled once by the frozen network, from which the average starts, and again by the
  average every `refresh` steps; the official code samples one for each step;
- each x_t is asked for at its own time; the official code draws a time within the sampler's interval, and where that is
  the first one its x_t is a finished image;
- c goes over all prompts and synonyms of the targets in turn, there over the concepts by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import SAMPLED, Presets, presets
from erase.methods._words import concept_text
from erase.methods.training.average import Average
from erase.methods.training.layers import Layers
from erase.methods.training.refresh import Refresh
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Model
from erase.options import Decay, Whole
from erase.task import Task


@dataclass(frozen=True)
class SDD(Trained):
    """Options of SDD, beside those of all training.

    `layers` as in ESD. `decay`: of the moving average; more follows slower. `anchored`: whether each prompt learns the
    prediction for the same one with its target's anchor instead of the empty one's. `refresh`: steps between two
    samplings of the bank by the average, 0 for none.
    """

    # The official code's, for everything.
    presets: ClassVar[Presets] = presets(
        {**SAMPLED, "steps": 1500, "learning_rate": 1e-5, "batch": 1, "decay": 0.999, "layers": "x"}
        | {"weight_decay": 1e-4, "gradient_clip": 1.0}
    )

    steps: int = 1500
    weight_decay: float = 1e-4
    gradient_clip: float = 1.0
    layers: Layers = "x"
    decay: Decay = 0.999
    anchored: bool = False
    refresh: Whole = 0

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        joined = concept_text(model, task)
        session = Session.start(self, model, task, work=work)
        bank, pairs = session.bank(session.plan([(joined, ())])), session.asked
        parameters = session.chosen(self.layers)
        average = Average.of(parameters, self.decay)
        refresh = Refresh.of(session, bank, self.refresh, student=lambda: session.holding(parameters, average.values))
        bank = refresh.bank

        def loss(step: int, generator: torch.Generator) -> Tensor:
            rows, steps = (torch.randint(size, (self.batch,), generator=generator) for size in bank.times.shape)
            seen = bank.inputs[rows, steps], bank.times[rows, steps]
            chosen = [pairs[(step * self.batch + number) % len(pairs)] for number in range(self.batch)]
            asked, starts = zip(*chosen, strict=True)
            with torch.no_grad():
                aim = session.denoiser.predict(*seen, session.given(starts if self.anchored else [""] * self.batch))
            return sdd_loss(session.denoiser.predict(*seen, session.given(asked)), aim)

        def after(step: int) -> None:
            average.follow()
            refresh.after(step)

        state = average.state | refresh.state
        session.train(parameters, loss, state=state, after=after, result=lambda: average.values)
        return session.edit(deltas=session.deltas(average.values))


def sdd_loss(predicted: Tensor, aim: Tensor) -> Tensor:
    """Mean squared distance of a prediction to that for the empty prompt, through which no gradient passes."""
    return torch.nn.functional.mse_loss(predicted, aim.detach())
