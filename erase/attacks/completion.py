"""Diffusion completion: the base draws the first steps, the edited model the rest.

Lu et al., "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025. What the edited model goes on with is noise
with a trace of the target in it: an erasure of the name alone lets it through. The control begins with the base's first
steps for what the target becomes, and goes on with the target's own prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from erase.attacks.search.attack import Setting
from erase.attacks.search.denoising import Walk, noise_of, walk
from erase.attacks.search.latents import LatentAttack, Reference
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.options import Inner


@dataclass(frozen=True)
class Completion(LatentAttack):
    """Options of diffusion completion.

    `shares`: of the steps that the base takes, tried in this order. `reference`: target, or as a control other.
    """

    shares: tuple[Inner, ...] = (0.2, 0.4)
    reference: Reference = "target"

    @property
    def settings(self) -> Sequence[Setting]:
        return [{"share": share} for share in self.shares]

    def latents(self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]) -> Tensor:
        base, edited = victim.base, victim.edited
        first = max(1, round(setting["share"] * edited.sampler.steps))
        begun = walk(base, noise_of(base, seeds), Walk(self.asked(victim, cases)), last=first)
        return walk(edited, begun, Walk([case.row.prompt for case in cases]), first=first)
