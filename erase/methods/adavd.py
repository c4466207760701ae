"""AdaVD: the concept's direction is taken out of cross-attention values, as far as a token's value is like it.

Paper: Wang et al., "Precise, Fast, and Low-cost Concept Erasure in Value Space", CVPR 2025. For a token's value v and
the value v_k of the last token of one of the concept's words, of unit length,

    v' = v - scale s_k <v, v_k> v_k,    s_k = sigmoid(slope (cos(v, v_k) - centre))

The start token's value stays. Official code: WYuan1001/AdaVD (Apache-2.0). As there, v is a token's value of all heads
behind the empty prompt's at the same place, and v_k likewise: their likeness is that of both together, to which the
default centre belongs, and both halves of guidance lose what is taken out. Without guidance v is the prompt's alone.
Differences from it:
- several words: v' = v - scale N^T R y with R = diag(s)^(1/2), the v_k as rows of N, and y from the small system
  (R N N^T R + I - R^2) y = R N v. What is left of a word does not depend on its place in the list, an unlike one
  counts for nothing, and where all are alike their span is taken out. The official code sums over a basis, which is
  orthogonal for two words and no more for three;
- the likeness, a flag of the official code that is off there and on in its demonstration, is always looked at;
- in a transformer that mixes text and image, values are of no token alone: there v is what the first layer that reads
  the tokens (`context_embedder`) makes of each, where the default centre was never tried by anybody;
- strength multiplies scale.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from erase.edit import Edit, describe
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_words
from erase.models import Model
from erase.options import Expect, Options, Positive
from erase.sampling.guides import CFG, Guide, GuidedBatch, PromptBatch, hooked, layer_of
from erase.task import Task


@dataclass(frozen=True)
class AdaVD(Options):
    """Options of AdaVD.

    `scale`: more takes more out, 1 all of it. `centre`: likeness from which on it does, `slope`: how sharply it begins.
    """

    # The official code's, for everything.
    presets: ClassVar[Presets] = presets({"scale": 2.0, "slope": 100.0, "centre": 0.93})

    scale: Positive = 2.0
    slope: Positive = 100.0
    centre: Annotated[float, Expect("a likeness, -1 to 1", lambda value: -1 <= value <= 1)] = 0.93

    def __call__(self, model: Model, task: Task) -> Edit:
        model.check_prompts(concept_words(task))
        return Edit(describe(self, model, task), guidance=True)

    def guide(self, model: Model, task: Task, *, strength: float) -> Guide:
        """What decomposes values."""
        parts = [part for part in model.encode(concept_words(task)).parts if (part.last >= 0).all()]
        last = torch.cat([part.states[torch.arange(len(part.ids)), part.last] for part in parts])
        there = [site for site in model.sites() if site.reads == "tokens"]
        values = [site.name for site in there if site.role == "value"]
        sites = tuple(values or (site.name for site in there))
        return Decomposing(self, last, sites, strength)


@dataclass
class Decomposing:
    """Values without a concept's directions, from the states of its words' last tokens [words, width]."""

    options: AdaVD
    last: Tensor
    sites: tuple[str, ...]
    strength: float
    empty: Tensor | None = None  # the empty prompt's states [tokens, width], where a batch's first half is its

    def attached(self, pipe: Any) -> AbstractContextManager[None]:
        return hooked((layer_of(pipe, site), self._hook) for site in self.sites)

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        self.empty = batch.empty.states[0] if batch.guidance > 1 else None
        return CFG(batch)

    def _hook(self, module: nn.Linear, inputs: tuple[Tensor, ...], values: Tensor) -> Tensor:
        concepts = _valued(module, self.last)
        if self.empty is None:
            return self._left(values, concepts.expand(values.shape[1], -1, -1))
        both = torch.cat(values.chunk(2), -1)
        empty = _valued(module, self.empty)[:, None].expand(-1, len(concepts), -1)
        left = self._left(both, torch.cat([empty, concepts.expand_as(empty)], -1))
        return torch.cat(left.chunk(2, -1))

    def _left(self, values: Tensor, concepts: Tensor) -> Tensor:
        left = decomposed(values[:, 1:], concepts[1:], options=self.options, strength=self.strength)
        return torch.cat([values[:, :1], left], 1)


def _valued(module: nn.Linear, states: Tensor) -> Tensor:
    return nn.functional.linear(states.to(module.weight), module.weight, module.bias)


def decomposed(values: Tensor, concepts: Tensor, *, options: AdaVD, strength: float = 1.0) -> Tensor:
    """The values [..., width] with the concepts' values [..., words, width] taken out as far as they are alike."""
    kind = torch.promote_types(values.dtype, torch.float32)
    units, whole = nn.functional.normalize(concepts.to(kind), dim=-1), values.to(kind)
    along = torch.einsum("...kw,...w->...k", units, whole)
    alike = along / whole.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(kind).tiny)
    # Just below 1, so that the system of a word that is named twice has a solution.
    shares = torch.sigmoid(options.slope * (alike - options.centre)).clamp(max=1 - 8 * torch.finfo(kind).eps)
    roots = shares.sqrt()
    likeness = roots[..., :, None] * (units @ units.mT) * roots[..., None, :]
    solved = torch.linalg.solve(likeness + torch.diag_embed(1 - shares), (roots * along)[..., None])[..., 0]
    out = torch.einsum("...k,...kw->...w", roots * solved, units)
    return (whole - options.scale * strength * out).to(values.dtype)
