"""Distillation, our own: targets learn their anchors' predictions and keeps their own, from a closed form onwards.

Our own trained method. On noisy latents of the anchors' and the keeps' trajectories, where the network is to draw, it
learns the frozen network's predictions: for a target's prompt c that of its anchor's prompt a, for a keep k its own,

    L = | e_s(x_a, c) - e(x_a, a) |^2  +  w | e_s(x_k, k) - e(x_k, k) |^2.

It takes from each of the others what holds its side best:
- the start is a closed form (`redirect`), which erases nearly all in a second; training repairs what it has left;
- only the keys and values of cross-attention change, by additions of low rank: nothing else reads the prompt;
- frozen predictions for real prompts on both sides, so that nothing is pushed beyond the anchor, as by ESD's eta, and
  nothing is chased that moves itself, as in Concept Ablation;
- a, c and k go over all prompts, words and keeps of the task, from one bank that is sampled once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.redirect import Redirect
from erase.methods.training.adapters import Adapters
from erase.methods.training.bank import PROMPTED
from erase.methods.training.layers import chosen_modules
from erase.methods.training.session import Session, askers, one_of
from erase.methods.training.trainer import Trained
from erase.models import Model
from erase.options import Count, NotNegative
from erase.task import Task

_mse = torch.nn.functional.mse_loss


@dataclass(frozen=True)
class Distil(Trained):
    """Options of this method, beside those of all training.

    `start`: `redirect`, or `none` to train from the model itself. `keep_weight`: more holds the keeps tighter,
    `keep_batch` of them in a step, from `keep_trajectories` of the bank. `rank`: of the additions; more can learn more.
    """

    # Ours, a slower rate than the embedded model's for models of full size; not tried on one.
    presets: ClassVar[Presets] = presets({"steps": 200, "learning_rate": 1e-4, "rank": 8})

    learning_rate: float = 1e-3
    batch: int = 4
    start: Literal["redirect", "none"] = "redirect"
    keep_weight: NotNegative = 1.0
    keep_batch: Count = 4
    keep_trajectories: Count = 16
    rank: Count = 8

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        started = Redirect()(model, task).text_maps if self.start == "redirect" else ()
        asked = askers(session.asked)
        bank = session.bank(session.plan((anchor, ()) for anchor in asked))
        kept = session.kept_bank(asked, self.keep_trajectories)
        modules = chosen_modules(session.denoiser.network, "x-strict")
        session.write(Edit(session.info, started))
        adapters = Adapters.on(
            modules, rank=self.rank, alpha=float(self.rank), seed=self.seed, device=session.denoiser.machine.device
        )

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn, held = bank.draw(self.batch, generator), kept.draw(self.keep_batch, generator)
            texts = [one_of(asked[anchor], generator) for anchor in drawn.prompts]
            inputs, times = torch.cat([drawn.inputs, held.inputs]), torch.cat([drawn.times, held.times])
            predicted = session.denoiser.predict(inputs, times, session.given([*texts, *held.prompts]))
            aims = drawn.predictions[PROMPTED], held.predictions[PROMPTED]
            return distil_loss(predicted, *aims, keep_weight=self.keep_weight)

        with adapters.attached():
            session.train(adapters.parameters, loss)
        return session.edit(text_maps=started, low_rank=session.low_rank(adapters))


def distil_loss(predicted: Tensor, aim: Tensor, held: Tensor, *, keep_weight: float) -> Tensor:
    """The erasing loss and the weighted holding one; `predicted` are predictions for `aim`, then those for `held`."""
    erased, kept = predicted[: len(aim)], predicted[len(aim) :]
    return _mse(erased, aim) + keep_weight * _mse(kept, held)
