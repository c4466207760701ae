"""Unified Concept Editing: cross-attention keys and values in closed form.

Paper: Gandikota et al., "Unified Concept Editing in Diffusion Models", WACV 2024, eq. 7.
Official code: unified-concept-editing (MIT). Differences from it:
- one matrix for all layers instead of one inverse a layer (`_ridge`), in float64 instead of float32;
- the start token and the empty prompt do not move (`protect`); officially they are a soft keep, or nothing at all;
- a target's prompts and synonyms are edited together, from any of three choices of tokens (`last` is today's official
  code, `aligned` the first one);
- an empty anchor is the empty prompt, state by state, where the official code takes its start token for every word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from erase.edit import Edit, TextMap, describe
from erase.errors import BadOption
from erase.methods._ridge import solve
from erase.methods._states import Tokens, all_states, edited_pairs
from erase.models import Model
from erase.task import Task


@dataclass(frozen=True)
class UCE:
    """Options of UCE.

    `erase_scale`: more pulls the targets closer to their anchors.
    `preserve_scale`: more holds the keeps tighter, against the targets.
    `lamb`: more changes less of everything.
    `tokens`: which token states are edited (`last`, `aligned`, `all`); more of them erase further and touch more.
    `protect`: the start token and the empty prompt are held exactly (`exact`), as keeps (`kept`) or not (`none`).
    """

    erase_scale: float = 1.0
    preserve_scale: float = 1.0
    lamb: float = 0.5
    tokens: Tokens = "all"
    protect: Literal["exact", "kept", "none"] = "exact"

    def __post_init__(self) -> None:
        for name in ("erase_scale", "lamb"):
            if getattr(self, name) <= 0:
                raise BadOption(f"uce: {name} is {getattr(self, name)}; expected a number greater than 0.")
        if self.preserve_scale < 0:
            raise BadOption(f"uce: preserve_scale is {self.preserve_scale}; expected 0 or more.")
        for name, valid in (("tokens", ("last", "aligned", "all")), ("protect", ("exact", "kept", "none"))):
            if getattr(self, name) not in valid:
                raise BadOption(f'uce: {name} is "{getattr(self, name)}"; expected one of {", ".join(valid)}.')

    def __call__(self, model: Model, task: Task) -> Edit:
        old, new = edited_pairs(model, task, self.tokens)
        keeps, empty = all_states(model, task.keeps), all_states(model, [""])
        up, down = solve(
            old,
            new,
            torch.cat([keeps, empty]) if self.protect == "kept" else keeps,
            erase_scale=self.erase_scale,
            preserve_scale=self.preserve_scale,
            lamb=self.lamb,
            exact=empty if self.protect == "exact" else None,
        )
        sites = tuple(site.name for site in model.sites() if site.reads == "tokens")
        return Edit(describe(self, model, task), (TextMap(up.float(), down.float(), sites),))
