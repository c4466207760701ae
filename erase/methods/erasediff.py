"""EraseDiff: what stays is learnt under the constraint that forgetting is as good as a few steps more would make it.

Paper: Wu et al., "EraseDiff: Erasing Data Influence in Diffusion Models", arXiv 2401.05779 (CVPR 2025), bi-level: among
the weights that minimise L_f those that minimise L_r, of first order, as in BOME (Ye et al., NeurIPS 2022):

    L_f = |e_s(x_f, c) - stopgrad e_s(x_f, a)|^2    on pictures x_f of concept c, with anchor a
    L_r = |e_s(x_r, r) - e|^2                      on pictures x_r of what stays, under their prompts r
    q   = L_f(theta) - L_f(theta_K)                 with theta_K after K descents on L_f, held as a constant
    step along  grad L_r + lambda grad L_f

theta_K carries no gradient, so that q adds but its value. Two ways to find lambda:
- `fixed`, the official code's (JingWu321/EraseDiff): a number; q then changes the loss that is printed and no weight,
  and the K descents, which the code makes, are left out here;
- `barrier`, BOME's: the least lambda by which q falls as fast as eta asks,
  lambda = max(eta q' - <grad L_r, grad L_f> / |grad L_f|^2, 0) with q' = q / (K inner_rate |grad L_f|^2), which is
  near 1 where L_f is straight. Learning what stays can so not undo forgetting, and what is forgotten costs no more.
Differences from the code: pictures are finished latents of banks, of the targets' prompts and of the keeps (of the
anchors where there are none); a is the same phrasing with the anchor, there one sentence about another thing; the
descents are plain ones, there Adam's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from erase.context import RunContext
from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.training.layers import Layers
from erase.methods.training.pictures import picture_loss, relabel_loss
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained, draws
from erase.models import Model
from erase.options import Count, NotNegative, Positive
from erase.task import Task

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class EraseDiff(Trained):
    """Options of EraseDiff, beside those of all training.

    `control`: how lambda is found, `fixed` or `barrier`. `lamb`: lambda where it is fixed; `eta`: how fast forgetting
    has to go where it is not; more of either erases further. `inner_steps`, `inner_rate`: of the descents that tell how
    much is left to forget. `keep_batch`: pictures of what stays in a step, from `keep_trajectories` of the bank.
    `layers` as in ESD.
    """

    # The official code's for nudity. Its five epochs are of a folder of pictures, 800 at the most; for all else ours.
    presets: ClassVar[Presets] = presets(
        {"steps": 250, "learning_rate": 1e-5, "batch": 16, "keep_batch": 16, "control": "fixed", "lamb": 0.1}
        | {"layers": "u"}
    )

    batch: int = 4
    control: Literal["fixed", "barrier"] = "barrier"
    lamb: NotNegative = 0.1
    eta: NotNegative = 1.0
    inner_steps: Count = 2
    inner_rate: Positive = 1e-3
    keep_batch: Count = 4
    keep_trajectories: Count = 16
    layers: Layers = "x"

    def __call__(self, model: Model, task: Task, *, work: RunContext | None = None) -> Edit:
        session = Session.start(self, model, task, work=work)
        becomes = dict(session.asked)
        forget = session.bank(session.plan((target, ()) for target in becomes))
        kept = session.kept_bank(becomes.values(), self.keep_trajectories)
        parameters = session.chosen(self.layers)

        def loss(step: int, generator: torch.Generator) -> Tensor:
            clean, texts = forget.draw_clean(self.batch, generator)
            others = [becomes[text] for text in texts]
            noise = int(torch.randint(2**31, (1,), generator=generator))

            def forgetting() -> Tensor:  # always on the same noise
                return relabel_loss(session, clean, texts, others=others, generator=draws(noise, step))

            remaining = picture_loss(session, *kept.draw_clean(self.keep_batch, generator), generator=generator)
            if self.control == "fixed":
                return remaining + self.lamb * forgetting()
            return self._guarded(remaining, forgetting, parameters)

        session.train(parameters, loss)
        return session.edit(deltas=session.deltas(parameters))

    def _guarded(self, remaining: Tensor, forgetting: Callable[[], Tensor], parameters: Values) -> Tensor:
        """The loss whose gradient is that of what remains plus lambda times that of forgetting."""
        forgotten, values = forgetting(), list(parameters.values())
        stay, go = (torch.autograd.grad(one, values, allow_unused=True) for one in (remaining, forgotten))
        left = forgotten.detach() - descended(forgetting, parameters, count=self.inner_steps, rate=self.inner_rate)
        weight = barrier(stay, go, left=left / (self.inner_steps * self.inner_rate), eta=self.eta)
        total = remaining.detach() + weight * forgotten.detach()
        for value, one, other in zip(values, stay, go, strict=True):
            slope = sum(part * share for part, share in ((one, 1.0), (other, weight)) if part is not None)
            total = total + ((value - value.detach()) * slope).sum().to(total.device)
        return total


def barrier(stay: Sequence[Tensor | None], go: Sequence[Tensor | None], *, left: Tensor, eta: float) -> Tensor:
    """lambda: eta times what is left to forget less the gradients' product, over |grad L_f|^2, and at least zero."""
    pairs = [(one, other) for one, other in zip(stay, go, strict=True) if other is not None]
    size = torch.stack([other.square().sum() for _, other in pairs]).sum()
    along = torch.stack([(one * other).sum() if one is not None else size.new_zeros(()) for one, other in pairs]).sum()
    if not size > 0:
        return torch.zeros_like(size)
    return ((eta * left.to(size).clamp(min=0) - along) / size).clamp(min=0)


def descended(loss: Callable[[], Tensor], parameters: Values, *, count: int, rate: float) -> Tensor:
    """The loss after some plain descents; the parameters are put back as they were."""
    before = {name: value.detach().clone() for name, value in parameters.items()}
    try:
        for _ in range(count):
            gradients = torch.autograd.grad(loss(), list(parameters.values()), allow_unused=True)
            with torch.no_grad():
                for value, gradient in zip(parameters.values(), gradients, strict=True):
                    if gradient is not None:
                        value.sub_(gradient, alpha=rate)
        with torch.no_grad():
            return loss().detach()
    finally:
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(before[name])
