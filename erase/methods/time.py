"""TIME: what a model assumes of an underspecified prompt is edited into its cross-attention, in closed form.

Paper: Orgad, Kawar, Belinkov, "Editing Implicit Assumptions in Text-to-Image Diffusion Models", ICCV 2023, eq. 4 and 5.
Official code: time-diffusion (no licence). Differences from it:
- one matrix for all layers, in float64 (`_ridge`);
- the anchor's prompt need not hold every word of the target's: exchanged words are matched from the last, and a word
  without counterpart becomes what follows it; where it holds them all, the alignment is the paper's;
- targets and keeps come in the phrasings that all closed forms share (`phrasings`); the paper has one prompt and its
  counterpart, and neither keeps (`preserve_scale`) nor a prior.

`preset: paper` goes back on the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from erase.edit import Edit
from erase.methods.closed_form.maps import Weights, map_both
from erase.methods.closed_form.phrasings import Phrasings, tell
from erase.methods.closed_form.prior import held
from erase.methods.closed_form.ridge import Factors, solve
from erase.methods.closed_form.states import paired_states
from erase.models import Model, Reads
from erase.options import NotNegative, Options, Positive
from erase.task import Task


@dataclass(frozen=True)
class TIME(Options):
    """Options of TIME.

    `lamb`: more changes less of everything.
    `weights`: what is edited: `values`, `keys` or `both`.
    `phrasings`: as in UCE.
    `preserve_scale`: more holds the keeps tighter; 0 is the paper.
    `prior`: a file of `scripts/build_prior.py`. `prior_scale`: as how many kept states it counts.
    """

    paper: ClassVar[Mapping[str, Any]] = MappingProxyType({"phrasings": "own", "preserve_scale": 0.0})

    lamb: Positive = 0.1
    weights: Weights = "both"
    phrasings: Phrasings = "shared"
    preserve_scale: NotNegative = 1.0
    prior: str = ""
    prior_scale: NotNegative = 1000.0

    def __call__(self, model: Model, task: Task) -> Edit:
        told = tell(model, task, phrasings=self.phrasings, prior=self.prior)
        pairs, scales = paired_states(model, told.pairs, "whole"), (self.preserve_scale, self.prior_scale)
        kept = held(model, told.kept, preserve_scale=scales[0], prior=told.prior, prior_scale=scales[1])

        def solved(reads: Reads) -> Factors:
            return solve(pairs[reads].old, pairs[reads].new, kept[reads], erase_scale=1.0, lamb=self.lamb)

        return map_both(self, model, task, solve=solved, weights=self.weights)
