"""TINA: a picture of the target is walked back to noise through the edited network, without any text, and drawn again.

Paper: "TINA", CVPR 2026 (arXiv 2603.17828). Each step back under the empty prompt is made consistent with the step
forward, so that the edited network draws from that noise what the picture shows, if it still can. The paper makes it so
by 25 steps of AdamW, here it is a fixed point's iteration. Text is asked for nothing, so an edit of what reads the text
cannot help, and a guard is not called.

Reconstruction alone proves little: a network may carry through whatever it is given. So a share of fresh noise is mixed
in (`jitter`), which the network has to fill; the control inverts a picture of something else; and what a model reaches
that never knew the target is the yardstick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from erase.attacks.search.attack import Setting
from erase.attacks.search.denoising import Walk, inverted, noise_of, walk
from erase.attacks.search.latents import LatentAttack, Reference
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.options import Count, Share


@dataclass(frozen=True)
class Tina(LatentAttack):
    """Options of TINA.

    `rounds`: of each step's fixed point; more are exacter and dearer. `jitter`: share of fresh noise in the noise that
    was found; more asks more of the network. `reference`: target, or as a control other.
    """

    rounds: Count = 3
    jitter: Share = 0.3
    reference: Reference = "target"

    def cost(self, victim: Victim, setting: Setting) -> int:
        return victim.edited.sampler.steps * (self.rounds + 1)

    def latents(self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]) -> Tensor:
        picture = self.pictures(victim, cases, seeds=[case.row.seed for case in cases])
        noise = inverted(victim.edited, picture, rounds=self.rounds)
        mixed = (1 - self.jitter**2) ** 0.5 * noise + self.jitter * noise_of(victim.edited, seeds)
        return walk(victim.edited, mixed, Walk())
