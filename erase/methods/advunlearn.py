"""AdvUnlearn: the text encoder unlearns a concept under soft tokens that try to bring it back.

Paper: Zhang et al., "Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models",
NeurIPS 2024, eq. 5 and 6. Each step first finds the soft tokens p that bring the concept back best,

    p = argmin | e(x_t, T(p + c)) - e_p |^2,

then trains the text encoder T against them and holds kept prompts r:

    L = | e(x_t, T(p + c)) - (e_0 - eta (e_p - e_0)) |^2  +  w | e(x_t', T(r)) - e_r |^2

Official code: OPTML-Group/AdvUnlearn (CC-BY-4.0). Differences from it:
- x_t, e_0, e_p and x_t', e_r depend on the frozen model alone, so they come from two banks; the official code samples a
  trajectory for each step of each attack, with a second network beside the first;
- all of an attack's steps are on the x_t of the step that it is for; officially each has one of its own;
- each x_t is asked for at its own time, officially at one drawn within the sampler's interval;
- r are the task's keeps, or the empty prompt if there are none, instead of prompts of COCO's objects;
- p begins with random words each time, as in the command of the official page; its default goes on with the last p.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import SAMPLED, Presets, presets
from erase.methods.esd import esd_target
from erase.methods.training.bank import PROMPTED, Drawn
from erase.methods.training.session import Session
from erase.methods.training.text import COMPONENT, TextEncoder
from erase.methods.training.trainer import Trained
from erase.models import Condition, Model
from erase.options import Count, NotNegative, Whole
from erase.task import Task

_mse = torch.nn.functional.mse_loss


@dataclass(frozen=True)
class AdvUnlearn(Trained):
    """Options of AdvUnlearn, beside those of all training.

    `eta`, `anchored` as in ESD. `keep_weight`: more holds the keeps tighter, `keep_batch` of them in a step.
    `attack_steps`, `attack_rate`, `prefix`: more, larger steps over more soft tokens attack harder.
    `warm_up`: steps before the first attack.
    """

    # The official code's. Its one command, which sets `keep_weight`, is for nudity; the rest is the same for all.
    presets: ClassVar[Presets] = presets(
        {**SAMPLED, "steps": 1000, "learning_rate": 1e-5, "batch": 1, "eta": 1.0, "keep_weight": 0.3, "keep_batch": 5}
        | {"attack_steps": 30, "attack_rate": 1e-3, "prefix": 1, "warm_up": 200}
    )

    steps: int = 1000
    eta: NotNegative = 1.0
    anchored: bool = False
    keep_weight: NotNegative = 0.3
    keep_batch: Count = 5
    attack_steps: Whole = 30
    attack_rate: NotNegative = 1e-3
    prefix: Count = 1
    warm_up: Whole = 200

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        TextEncoder.check(model)
        session = Session.start(self, model, task, work=work, text_encoder=True)
        asked = ((text, (start,) if self.anchored else ()) for text, start in session.asked)
        bank = session.bank(session.plan(asked))
        kept = session.bank(session.plan(((text, ()) for text in task.kept or ("",)), every_one=False))
        encoder = TextEncoder.of(session.denoiser.text_encoder)
        parameters = encoder.parameters()

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn, held = bank.draw(self.batch, generator), kept.draw(self.keep_batch, generator)
            prefix = self._attack(session, encoder, drawn=drawn, generator=generator) if step >= self.warm_up else None
            predicted = _predicted(session, encoder, drawn, prefix=prefix)
            still = _predicted(session, encoder, held)
            aims = esd_target(drawn.predictions, eta=self.eta), held.predictions[PROMPTED]
            return advunlearn_loss(predicted, still, aims=aims, keep_weight=self.keep_weight)

        session.train(parameters, loss)
        return session.edit(deltas=session.deltas(parameters, component=COMPONENT))

    def _attack(self, session: Session, encoder: TextEncoder, *, drawn: Drawn, generator: torch.Generator) -> Tensor:
        start = encoder.words(len(drawn.inputs), self.prefix, generator)
        concept = drawn.predictions[PROMPTED]
        return strongest(
            lambda prefix: _mse(_predicted(session, encoder, drawn, prefix=prefix), concept),
            start,
            steps=self.attack_steps,
            rate=self.attack_rate,
            whole=session.denoiser.machine.summed,
        )


def advunlearn_loss(predicted: Tensor, still: Tensor, *, aims: tuple[Tensor, Tensor], keep_weight: float) -> Tensor:
    """The erasing loss and the weighted holding one; `aims` are what the two predictions are to be."""
    return _mse(predicted, aims[0]) + keep_weight * _mse(still, aims[1])


def strongest(
    loss: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    steps: int,
    rate: float,
    whole: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Tensor:
    """Soft tokens after some steps of Adam down their loss; nothing else gets a gradient.

    `whole` makes a gradient that of all processes.
    """
    tokens = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([tokens], lr=rate)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(tokens), [tokens])
        tokens.grad = whole(gradient)
        adam.step()
    return tokens.detach()


def _predicted(session: Session, encoder: TextEncoder, drawn: Drawn, *, prefix: Tensor | None = None) -> Tensor:
    states = encoder.states(session.ids(drawn.prompts), prefix)
    return session.denoiser.predict(drawn.inputs, drawn.times, Condition(states))
