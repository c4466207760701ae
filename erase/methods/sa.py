"""Selective Amnesia: the target's prompt is taught other pictures, and what the rest depends on is held where it was.

Paper: Heng and Soh, "Selective Amnesia: A Continual Learning Approach to Forgetting in Deep Generative Models",
NeurIPS 2023, eq. 6, as its code writes it for a diffusion model with weights theta, from theta*:

    L = |e_s(x_q, c) - e|^2 + replay |e_s(x_r, r) - e|^2 + weight sum_i F_i (theta_i - theta*_i)^2

for surrogate pictures x_q under the concept's prompt c, pictures x_r of what stays under their own prompts r, and the
Fisher information F, the mean square of each weight's gradient of the loss on pictures that the model drew itself.
Official code: clear-nus/selective-amnesia (MIT). Differences from it:
- all pictures are finished latents of banks: surrogates those of the anchor's prompts, replay and Fisher those of the
  keeps, or of the anchors where there are none; the official code draws thousands, for prompts that a language model
  wrote, and its surrogates of nudity are real;
- F comes from `fisher` gradients, one picture at a time, in the layers that are trained; it is computed on several
  cards there, from whole batches, and read from a pickle;
- the sum over weights is that of the paper; the code's weight of 50 belongs to its own F, and ours to ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from erase.context import Report, RunContext, in_silence
from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.training.bank import Bank
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import picture_loss
from erase.methods.training.session import Session, askers, one_of
from erase.methods.training.trainer import Trained, draws
from erase.models import Model
from erase.options import Count, NotNegative
from erase.task import Task


@dataclass(frozen=True)
class SA(Trained):
    """Options of Selective Amnesia, beside those of all training.

    `weight`: of the pull to the weights' first values; more holds everything tighter. `replay`: of the pictures of what
    stays, `keep_batch` of them in a step, from `keep_trajectories` of the bank. `fisher`: gradients that say which
    weights matter. `layers` as in ESD.
    """

    # The official code's for nudity; its steps are 500 epochs there, 200 of other targets on four cards, which ours
    # stand for at the batch of one. `x` is its choice of all but nudity.
    presets: ClassVar[Presets] = presets(
        {"steps": 1000, "learning_rate": 1e-5, "batch": 4, "keep_batch": 4, "weight": 50.0, "replay": 1.0}
        | {"fisher": 200, "layers": "x"},
        nsfw={"layers": "u"},
    )

    batch: int = 4
    weight: NotNegative = 50.0
    replay: NotNegative = 1.0
    keep_batch: Count = 4
    keep_trajectories: Count = 16
    fisher: Count = 64
    layers: Layers = "x"

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        asked = askers(session.asked)
        surrogates = session.bank(session.plan((anchor, ()) for anchor in asked))
        kept = session.kept_bank(asked, self.keep_trajectories)
        parameters = session.chosen(self.layers)
        start = {name: value.detach().clone() for name, value in parameters.items()}

        def drawn_loss(bank: Bank, count: int, generator: torch.Generator, *, forget: bool = False) -> Tensor:
            clean, texts = bank.draw_clean(count, generator)
            prompts = [one_of(asked[text], generator) for text in texts] if forget else texts
            return picture_loss(session, clean, prompts, generator=generator)

        samples = (drawn_loss(kept, 1, draws(self.seed, -2 - number)) for number in range(self.fisher))
        importance = fisher_information(parameters, samples, report=session.work.report, total=self.fisher)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            forgotten = drawn_loss(surrogates, self.batch, generator, forget=True)
            held = drawn_loss(kept, self.keep_batch, generator) if self.replay else torch.zeros(())
            pull = sa_pull(parameters, start, importance).to(forgotten.device)
            return forgotten + self.replay * held + self.weight * pull

        session.train(parameters, loss)
        return session.edit(deltas=session.deltas(parameters))


def fisher_information(
    parameters: Mapping[str, Tensor], losses: Iterable[Tensor], *, report: Report = in_silence, total: int = 0
) -> dict[str, Tensor]:
    """The mean square of each weight's gradient over losses of one picture each."""
    found = {name: torch.zeros_like(value, requires_grad=False) for name, value in parameters.items()}
    count = 0
    for count, loss in enumerate(losses, start=1):
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                found[name].addcmul_(gradient, gradient)
        report("fisher", count, total, unit="gradients")
    return {name: value.div_(max(count, 1)) for name, value in found.items()}


def sa_pull(values: Mapping[str, Tensor], start: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> Tensor:
    """The squared distance of all weights to their first values, each as far as it matters."""
    return torch.stack([(importance[name] * (values[name] - start[name]).square()).sum() for name in values]).sum()
