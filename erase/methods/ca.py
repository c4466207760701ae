"""Concept Ablation: under the target's prompt the network learns what it predicts, or draws, under the anchor's.

Paper: Kumari et al., "Ablating Concepts in Text-to-Image Diffusion Models", ICCV 2023, eq. 4 (model-based) and eq. 5
(noise-based), for a noisy latent x_t of an image of the anchor, target prompt c* and anchor prompt c:

    L = | e_s(x_t, c*) - stopgrad e_s(x_t, c) |^2        L = | e_s(x_t, c*) - e |^2

and, with a weight, the prior |e_s(x_t, c) - e|^2. Official code: nupurkmr9/concept-ablation (MIT). As there, the
anchor's prediction is the trained network's own, and no gradient passes through the keys and values of the start token,
which is the same in every prompt. Differences from it:
- the images are the finished latents of a bank of the anchor's prompts, a few instead of a thousand, not decoded and
  encoded again, without resizing, cropping and mirroring;
- prompts are the task's templates, instead of those that a language model wrote;
- the prior is taken on the same latents, officially on as many others in a second half of the batch; the anchor's
  prediction, which both terms share here, then has a gradient from the prior.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import Noised
from erase.methods.training.session import Session, one_of
from erase.methods.training.trainer import Trained
from erase.models import Model
from erase.options import NotNegative
from erase.sampling.guides import hooked
from erase.task import Task

_mse = nn.functional.mse_loss


@dataclass(frozen=True)
class CA(Trained):
    """Options of Concept Ablation, beside those of all training.

    `loss`: `model` learns the anchor's prediction, `noise` the anchor's images. `layers` as in ESD.
    `prior_weight`: more holds the anchor tighter. `learning_rate`: the paper's 2e-6 for each of a step's 4 samples.
    """

    # The official code's on one card, for which it doubles its steps; the rate is multiplied by the batch, and by 2
    # where there is a prior. Its nudity trains all projections of attention, of which `x` are the prompt's.
    presets: ClassVar[Presets] = presets(
        {"steps": 200, "learning_rate": 8e-6, "batch": 4, "layers": "x-strict", "loss": "model", "prior_weight": 0.0}
        | {"weight_decay": 0.01, "sampling_steps": 25, "sampling_guidance": 6.0},
        nsfw={"steps": 800, "learning_rate": 3.2e-5, "layers": "x", "prior_weight": 1.0},
    )

    learning_rate: float = 8e-6
    batch: int = 4
    sampling_guidance: float = 6.0
    loss: Literal["model", "noise"] = "model"
    layers: Layers = "x-strict"
    prior_weight: NotNegative = 0.0

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        pairs = session.asked
        bank = session.bank(session.plan((new, ()) for _, new in pairs))
        parameters = session.chosen(self.layers)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            clean, anchors = bank.draw_clean(self.batch, generator)
            noised = Noised.of(session.denoiser, clean, generator)
            targets = [one_of([old for old, new in pairs if new == anchor], generator) for anchor in anchors]
            predicted, truth = noised.predicted(session, targets), noised.truth
            if self.loss == "noise" and not self.prior_weight:
                return ca_loss(predicted, truth)
            with contextlib.nullcontext() if self.prior_weight else torch.no_grad():
                anchored = noised.predicted(session, anchors)
            aim = truth if self.loss == "noise" else anchored
            return ca_loss(predicted, aim) + self.prior_weight * _mse(anchored, truth)

        with start_token_detached(session):
            session.train(parameters, loss)
        return session.edit(deltas=session.deltas(parameters))


def ca_loss(predicted: Tensor, aim: Tensor) -> Tensor:
    """Mean squared distance of the target's prediction to what it is to be, through which no gradient passes."""
    return _mse(predicted, aim.detach())


def start_token_detached(session: Session) -> contextlib.AbstractContextManager[None]:
    """No gradient through the keys and values of each prompt's first token, until the block ends."""
    modules = dict(session.denoiser.network.named_modules())
    sites = [site for site in session.model.sites() if site.reads == "tokens"]
    return hooked((modules[site.key.removesuffix(".weight")], _detach_first) for site in sites)


def _detach_first(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return torch.cat([output[:, :1].detach(), output[:, 1:]], 1)
