"""Noise probe: the plain prompt, sampled with more and with stronger noise than the sampler adds.

Lu et al., "When Are Concepts Erased From Diffusion Models?", NeurIPS 2025: DDIM with eta from 1 to 1.85 and the noise
of each step made up to 4 % stronger, 24 samples, of which the best one counts. Here the settings are tried in that
order until the judge sees the target, and success is counted on a fresh seed by the setting that was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from erase.attacks.search.attack import Setting
from erase.attacks.search.denoising import Walk, noise_of, walk
from erase.attacks.search.latents import LatentAttack, Reference
from erase.attacks.search.victim import Victim
from erase.attacks.seed_search import SeedSearch
from erase.errors import BadModel
from erase.evaluate.protocol import Case
from erase.options import NotNegative


@dataclass(frozen=True)
class NoiseProbe(LatentAttack):
    """Options of the noise probe.

    `etas`: shares of new noise in a step; 0 is DDIM's own way, 1 that of DDPM. `variances`: by which new noise is
    multiplied.
    """

    etas: tuple[NotNegative, ...] = (1.0, 1.17, 1.34, 1.51, 1.68, 1.85)
    variances: tuple[NotNegative, ...] = (1.0, 1.02, 1.03, 1.04)

    @property
    def reference(self) -> Reference:  # type: ignore[override]
        return "target"

    @property
    def control(self) -> Any:
        return SeedSearch()

    @property
    def settings(self) -> Sequence[Setting]:
        return [{"eta": eta, "variance": variance} for eta in self.etas for variance in self.variances]

    def latents(self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]) -> Tensor:
        side, count = victim.edited, len(cases)
        if side.denoiser.space == "flow":
            raise BadModel("noise_probe adds noise between steps, which a flow model's sampler does not; use tina.")
        how = Walk(self.asked(victim, cases), [setting["eta"]] * count, [setting["variance"]] * count, seeds)
        return walk(side, noise_of(side, seeds), how)
