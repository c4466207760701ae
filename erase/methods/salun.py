"""SalUn: only the weights that the target's pictures pull at most are taught that these pictures are the anchor's.

Paper: Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-Based Weight Saliency", ICLR 2024, eq. 3 and 5:
with m = 1 for the weights whose gradient of the loss on pictures x_f of concept c is among the largest, and r prompts
of what stays, with pictures x_r,

    L = |e_s(x_f, c) - stopgrad e_s(x_f, a)|^2 + alpha |e_s(x_r, r) - e|^2,    gradients times m

Official code: OPTML-Group/Unlearn-Saliency (MIT). Differences from it:
- pictures are finished latents of banks, of the targets' prompts and of the keeps (of the anchors where there are
  none), instead of 800 of either that are drawn, decoded and encoded again;
- the gradients for m are of the loss under the concept's prompt; the code takes its guided prediction there;
- m by bisection of all gradients' bits, in memory of one bit pattern each; the code sorts all weights twice, in 64-bit
  integers, and keeps the masks so;
- the other prompt is the same phrasing with the anchor; the code's for nudity is one sentence, and for classes another
  class.
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
from erase.methods.training.bank import Bank
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import picture_loss, relabel_loss
from erase.methods.training.saliency import masked, salient
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained, draws
from erase.models import Model
from erase.options import Count, NotNegative, Rate
from erase.task import Task


@dataclass(frozen=True)
class SalUn(Trained):
    """Options of SalUn, beside those of all training.

    `share`: of the weights that are trained; more erases further and harms more. `mask_batches`: of pictures, whose
    gradients choose them. `alpha`: of the pictures of what stays; more holds them tighter, `keep_batch` of them in a
    step, from `keep_trajectories` of the bank. `layers` as in ESD, of which the share is taken.
    """

    # The official code's: one epoch of its 800 pictures for nudity; a class has alpha 0.5 and five epochs, of which
    # styles and faces are ours.
    presets: ClassVar[Presets] = presets(
        {"steps": 500, "learning_rate": 1e-5, "batch": 8, "keep_batch": 8, "share": 0.5, "alpha": 0.5}
        | {"mask_batches": 100, "layers": "all"},
        nsfw={"steps": 100, "alpha": 0.1},
    )

    batch: int = 4
    share: Rate = 0.5
    mask_batches: Count = 8
    alpha: NotNegative = 0.5
    keep_batch: Count = 4
    keep_trajectories: Count = 16
    layers: Layers = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight_decay:
            raise BadOption(
                f"salun: weight_decay is {self.weight_decay}; expected 0, for it moves what the mask holds."
            )

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        becomes = dict(session.asked)
        forget = session.bank(session.plan((target, ()) for target in becomes))
        kept = session.kept_bank(becomes.values(), self.keep_trajectories)
        parameters = session.chosen(self.layers)
        masks = salient(self._gradients(session, forget, parameters), self.share)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            clean, texts = forget.draw_clean(self.batch, generator)
            others = [becomes[text] for text in texts]
            erased = relabel_loss(session, clean, texts, others=others, generator=generator)
            if not self.alpha:
                return erased
            remaining = kept.draw_clean(self.keep_batch, generator)
            return erased + self.alpha * picture_loss(session, *remaining, generator=generator)

        with masked(parameters, masks):
            session.train(parameters, loss)
        # A layer of which no weight was chosen is not in the edit.
        return session.edit(deltas={name: delta for name, delta in session.deltas(parameters).items() if delta.any()})

    def _gradients(self, session: Session, bank: Bank, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """The gradients of the loss on the targets' pictures, summed over some batches."""
        found = {name: torch.zeros_like(value, requires_grad=False) for name, value in parameters.items()}
        for number in range(self.mask_batches):
            generator = draws(self.seed, -2 - number)
            loss = picture_loss(session, *bank.draw_clean(self.batch, generator), generator=generator)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for total, gradient in zip(found.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient
            session.work.report("saliency", number + 1, self.mask_batches, unit="batches")
        return found
