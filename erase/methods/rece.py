"""RECE: after a closed-form edit, the embedding that still brings the concept back is derived and erased, and again.

Paper: Gong et al., "Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models", ECCV 2024, eq. 5 and 7.
Official code: RECE (Apache-2.0). In it, W are the original and W' the current weights of all layers, and

    c' = (reg I + sum W'^T W')^-1 (sum W'^T W) c

is the state whose outputs under W' are nearest to those of a target's state c under W; UCE's step then erases c' from
W'. With W' = W M and S = sum W^T W this is c' = (reg I + M^T S M)^-1 M^T S c, so that the whole method is algebra on
M. Differences from the official code:
- a round erases the targets' states and all derived ones together, from the original weights (`together`). Officially
  it erases the derived ones alone, from the weights of the round before, and what was erased before is let go of: with
  P of `_ridge`, one state and W' o = W' n = W n, the next weights give W'' o = W n + (c'^T P o)(W n - W' c'), where
  W' c' is close to W o. So o goes past its anchor, by c'^T P o of the way, near to one where c' resembles o: after two
  rounds on `emoji` its states are half as far from their anchors as before any edit;
- no pipeline is loaded and no image made between rounds: their number is an option, officially at most three, of which
  the one is kept whose images show least;
- of the official ways to derive a state the plain one (`close_regzero`), as in its commands;
- in float64, with the start token and the empty prompt held exactly (`protect`);
- the states that are edited are those of UCE's option `tokens`, where officially all of a prompt's are, each with that
  of the anchor's at the same place (`whole` goes by the words);
- targets and keeps come in the phrasings that all closed forms share (`phrasings`); officially targets are bare names;
- the first edit has RECE's own scales; officially it is a checkpoint of UCE, made before.

`preset: paper` goes back on the first, the fourth, the fifth and the sixth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from erase.edit import Edit
from erase.methods._presets import Presets, presets
from erase.methods.closed_form.maps import map_both, sites_of, square
from erase.methods.closed_form.phrasings import Phrasings, tell
from erase.methods.closed_form.prior import held
from erase.methods.closed_form.ridge import Factors, compose, gram, matrix, solve
from erase.methods.closed_form.states import Pairs, empty_states, paired_states
from erase.models import Model, Reads
from erase.options import NotNegative, Options, Positive, Whole
from erase.task import Task


@dataclass(frozen=True)
class RECE(Options):
    """Options of RECE.

    `rounds`: how often the way back is derived and erased; 0 is UCE. More erases further and touches more.
    `together`: a round erases all states that were found so far (`True`), or the last ones alone, as officially.
    `reg`: more keeps the derived states smaller, and with them what a round changes.
    `erase_scale`, `preserve_scale`, `lamb`, `tokens`, `protect`, `phrasings`, `prior`, `prior_scale`: as in UCE.
    """

    # The official code's: other unsafe content; styles and objects that UCE finds hard. It gives nudity one round more,
    # and objects that UCE finds easy a reg of 0.1.
    presets: ClassVar[Presets] = presets(
        {"rounds": 1, "reg": 1e-3, "erase_scale": 1.0, "preserve_scale": 0.1, "lamb": 0.1},
        nsfw={"rounds": 2, "reg": 0.1},
    )

    # What is official whatever the kind.
    paper: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"together": False, "tokens": "whole", "protect": "kept", "phrasings": "own"}
    )

    rounds: Whole = 2
    together: bool = True
    reg: Positive = 0.1
    erase_scale: Positive = 1.0
    preserve_scale: NotNegative = 0.1
    lamb: Positive = 0.1
    tokens: Literal["last", "aligned", "all", "whole"] = "all"
    protect: Literal["exact", "kept", "none"] = "exact"
    phrasings: Phrasings = "shared"
    prior: str = ""
    prior_scale: NotNegative = 1000.0

    def __call__(self, model: Model, task: Task) -> Edit:
        told = tell(model, task, phrasings=self.phrasings, prior=self.prior)
        pairs, scales = paired_states(model, told.pairs, self.tokens), (self.preserve_scale, self.prior_scale)
        kept = held(model, told.kept, preserve_scale=scales[0], prior=told.prior, prior_scale=scales[1])
        empty, sites = empty_states(model), sites_of(model, method=self)
        if self.protect == "kept":
            kept = {reads: moment + self.preserve_scale * gram(empty[reads]) for reads, moment in kept.items()}

        def solved(reads: Reads) -> Factors:
            exact = empty[reads] if self.protect == "exact" else None
            return self.erase(pairs[reads], kept[reads], seen=square(model, sites[reads]), exact=exact)

        return map_both(self, model, task, solve=solved)

    def erase(self, pairs: Pairs, kept: Tensor, *, seen: Tensor, exact: Tensor | None) -> Factors:
        """The map of all rounds in factors, float64; `kept` is H of the ridge problem and `seen` is S."""
        old, new, scale = pairs.old.double(), pairs.new.double(), self.erase_scale
        factors = solve(old, new, kept, erase_scale=scale, lamb=self.lamb, exact=exact)
        for number in range(self.rounds):
            found = way_back(pairs.old, matrix(factors), seen=seen, reg=self.reg)
            if self.together:
                old, goals = torch.cat([old, found]), new.repeat(number + 2, 1)
                factors = solve(old, goals, kept, erase_scale=scale, lamb=self.lamb, exact=exact)
            else:
                step = solve(found, new, kept, erase_scale=scale, lamb=self.lamb, exact=exact)
                factors = compose(factors, step)
        return factors


def way_back(states: Tensor, moved: Tensor, *, seen: Tensor, reg: float) -> Tensor:
    """States [states, width] whose outputs under the edited weights come nearest to the states' own before, float64.

    `moved` is M and `seen` is S, [width, width] each.
    """
    system = moved.T @ seen @ moved + reg * torch.eye(len(seen), dtype=torch.float64)
    found: Tensor = torch.linalg.solve(system, moved.T @ (seen @ states.double().T)).T
    return found
