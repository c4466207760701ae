"""GEM: the network is drawn to the anchor and pushed off the concept, until it is nearer to the former.

Paper: "GEM", ICML 2026, arXiv 2606.00140, by contrastive velocity matching. With v_s the trained network and v_0 the
frozen one, concept c and anchor a, over n noisy latents x_t of trajectories of c:

    L = gamma / n sum_t relu( |v_s(x_t, c) - v_0(x_t, a)| - eta |v_s(x_t, c) - v_0(x_t, c)| )

where |.| is the root of the sum of squares. What is nearer to the anchor than eta says learns no more, so that nothing
is pushed further than it has to be. Only queries and keys are trained, by additions of low rank. The official code
(MIT) trains rectified flow; the loss is of distances between predictions, which another space scales at each time, so
it is the same for a network that predicts noise but for the weight of a time. Differences from it:
- x_t and both frozen predictions come from a bank that is sampled once, so that each latent costs one prediction of the
  trained network; the official code samples by the network that learns, as `refresh` does every so many steps;
- without an anchor a target goes to the empty prompt's prediction;
- no dropout in the additions, whose inputs it zeroes by a tenth there;
- each prompt of the task and each synonym is learnt; the keeps are not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.training.adapters import Adapters
from erase.methods.training.bank import ALSO, PROMPTED, Bank
from erase.methods.training.layers import Layers, chosen_modules
from erase.methods.training.refresh import Refresh
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Model
from erase.options import Count, NotNegative, Positive, Rate, Whole
from erase.task import Task


@dataclass(frozen=True)
class GEM(Trained):
    """Options of GEM, beside those of all training.

    `eta`: more goes further from the concept, 0 goes to the anchor alone. `gamma`: of the loss. `early`: the share of a
    trajectory's steps, from noise on, that is learnt from. `rank`, `alpha`: of the additions, multiplied by
    alpha / rank. `layers` as in ESD. `refresh`: steps between two samplings of the bank by the network that learns, 0
    for none.
    """

    # The official code's for SD 3 and FLUX, in 25 steps of its 250 losses; its gore takes 500. The rate is that of
    # FLUX, of SD 3 it is 2e-4. Styles and faces are ours: it has none.
    presets: ClassVar[Presets] = presets(
        {"steps": 25, "learning_rate": 1e-3, "batch": 10, "sampling_steps": 40, "early": 0.25, "eta": 1.0}
        | {"gamma": 100.0, "rank": 16, "alpha": 16.0, "layers": "qk"}
    )

    learning_rate: float = 1e-3
    batch: int = 4
    eta: NotNegative = 1.0
    gamma: Positive = 100.0
    early: Rate = 0.25
    rank: Count = 16
    alpha: Positive = 16.0
    layers: Layers = "qk"
    refresh: Whole = 0

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        bank = session.bank(session.plan((target, (anchor,)) for target, anchor in session.asked))
        modules = chosen_modules(session.denoiser.network, self.layers)
        device = session.denoiser.machine.device
        adapters = Adapters.on(modules, rank=self.rank, alpha=self.alpha, seed=self.seed, device=device)
        refresh = Refresh.of(session, bank, self.refresh, frozen=adapters.off)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            drawn = first_steps(refresh.bank, self.early).draw(self.batch, generator)
            predicted = session.denoiser.predict(drawn.inputs, drawn.times, session.given(drawn.prompts))
            concept, anchor = drawn.predictions[PROMPTED], drawn.predictions[ALSO]
            return gem_loss(predicted, anchor, concept, eta=self.eta, gamma=self.gamma)

        with adapters.attached():
            session.train(adapters.parameters, loss, state=refresh.state, after=refresh.after)
        return session.edit(low_rank=session.low_rank(adapters))


def first_steps(bank: Bank, share: float) -> Bank:
    """The bank's first steps, where the latents are all but noise: a share of them, at least one."""
    count = math.ceil(share * bank.times.shape[1])
    return replace(
        bank, inputs=bank.inputs[:, :count], times=bank.times[:, :count], predictions=bank.predictions[:, :count]
    )


def gem_loss(predicted: Tensor, anchor: Tensor, concept: Tensor, *, eta: float, gamma: float) -> Tensor:
    """By how much each prediction is farther from the anchor's than from `eta` times the concept's, on average."""
    near, far = ((predicted - aim).flatten(1).norm(dim=1) for aim in (anchor, concept))
    return gamma * torch.relu(near - eta * far).mean()
