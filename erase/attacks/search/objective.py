"""How well the edited network denoises a target's pictures as the base does: what attacks by gradient go down.

Pictures z of the target are drawn by the base for the plain prompts p and are noised to z_t; q is p with what the
target becomes. `what` says what the edited network's prediction e for a prompt under search is held against:

    noise      |e - eps|^2, eps being the noise itself, as in the published attacks
    base       |e - b_p|^2, b_p being what the base predicts for p: the same without eps's own spread
    direction  (|e - b_p|^2 - |e - b_q|^2) / |b_p - b_q|^2: from 1 at what the target becomes to -1 at the target

The last one leaves out all that the target and its anchor share, which is most of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from erase.attacks.search.victim import Victim, without_target
from erase.evaluate.protocol import Case
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.inversion import place
from erase.models import Condition

Aim = Literal["noise", "base", "direction"]
FIRST, LAST = 0.1, 0.95  # of the noise schedule: below is detail, above nothing of the picture is left


@dataclass(frozen=True)
class Objective:
    """The losses of conditions at prompts' noisy latents that stay as they are; tensors are [prompts, levels, ...].

    `cost`: evaluations that it took to make, a prompt.
    """

    denoiser: Denoiser
    inputs: Tensor
    times: Tensor
    aims: Tensor
    away: Tensor | None = None
    cost: int = 0

    @property
    def levels(self) -> int:
        return self.inputs.shape[1]

    def __call__(self, given: Condition, which: Tensor) -> Tensor:
        """The mean losses [rows] of the rows of a condition for the prompts that are numbered `which` [rows]."""
        inputs, times = self.inputs[which].flatten(0, 1), self.times[which].flatten()
        predicted = self.denoiser.predict(inputs, times, given.repeated(self.levels))
        predicted = _apart(predicted, self.levels)
        far = (predicted - self.aims[which]).square().flatten(2).mean(2)
        if self.away is not None:
            span = (self.aims[which] - self.away[which]).square().flatten(2).mean(2).clamp(min=1e-12)
            far = (far - (predicted - self.away[which]).square().flatten(2).mean(2)) / span
        found: Tensor = far.mean(1)
        return found


@torch.no_grad()
def objective_of(victim: Victim, cases: Sequence[Case], *, levels: int, what: Aim) -> Objective:
    """The objective of some prompts, each at one time of so many equal parts of the noise schedule."""
    base, edited, rows = victim.base, victim.edited, [case.row for case in cases]
    clean = base.latents(rows)[:, None].repeat(1, levels, *[1] * 3)
    generator = victim.generator("levels", [(row.prompt, row.seed) for row in rows])
    within = (torch.arange(levels) + torch.rand(len(rows), levels, generator=generator)) / levels
    times = ((FIRST + (LAST - FIRST) * within) * edited.denoiser.times).long()
    noise = torch.randn(clean.shape, generator=generator)
    noisy = edited.denoiser.level(times.flatten()).noisy(clean.flatten(0, 1), noise.flatten(0, 1))

    def predicted(texts: Sequence[str]) -> Tensor:
        given = base.reader.read(place(base.tokenizer, texts, [], count=0).ids)
        return _apart(base.denoiser.predict(noisy, times.flatten(), given.repeated(levels)), levels)

    inputs = _apart(noisy, levels)
    if what == "noise":
        truth = edited.denoiser.truth(clean.flatten(0, 1), noise.flatten(0, 1), times.flatten())
        return Objective(edited.denoiser, inputs, times, _apart(truth, levels))
    aims = predicted([row.prompt for row in rows])
    if what == "base":
        return Objective(edited.denoiser, inputs, times, aims, cost=levels)
    away = predicted([without_target(victim, case) for case in cases])
    return Objective(edited.denoiser, inputs, times, aims, away, cost=2 * levels)


def _apart(values: Tensor, levels: int) -> Tensor:
    return values.reshape(-1, levels, *values.shape[1:])
