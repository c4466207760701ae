"""AdaVD: the concept's direction is taken out of cross-attention values, as far as a token's value is like it.

Paper: Wang et al., "Precise, Fast, and Low-cost Concept Erasure in Value Space", CVPR 2025. For a token's value v, and
the value v_k of the last token of each of the concept's words, made orthogonal to u_k by Gram and Schmidt:

    v' = v - sum_k w_k <v, u_k> u_k,    w_k = scale sigmoid(slope (cos(v, v_k) - centre))

The start token's value stays. Official code: WYuan1001/AdaVD (Apache-2.0). Differences from it: values are whole rather
than a head's part, whatever the number of heads and images; strength multiplies w_k.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from erase.edit import Edit, describe
from erase.errors import BadOption
from erase.guide import Free, Guide, Guided, Prompted, hooked, layer_of
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_words
from erase.models import Model
from erase.task import Task


@dataclass(frozen=True)
class AdaVD:
    """Options of AdaVD.

    `scale`: more takes more out, 1 all of it. `centre`: likeness from which on it does, `slope`: how sharply it begins.
    """

    # The official code's, for everything.
    presets: ClassVar[Presets] = presets({"scale": 2.0, "slope": 100.0, "centre": 0.93})

    scale: float = 2.0
    slope: float = 100.0
    centre: float = 0.93

    def __post_init__(self) -> None:
        for name in ("scale", "slope"):
            if not getattr(self, name) > 0:
                raise BadOption(f"adavd: {name} is {getattr(self, name)}; expected more than 0.")
        if not -1 <= self.centre <= 1:
            raise BadOption(f"adavd: centre is {self.centre}; expected a likeness, -1 to 1.")

    def __call__(self, model: Model, task: Task) -> Edit:
        model.check_prompts(concept_words(task))
        return Edit(describe(self, model, task), guidance=True)

    def guide(self, model: Model, task: Task, *, strength: float) -> Guide:
        """What decomposes values."""
        encoding = model.encode(concept_words(task))
        last = encoding.states[torch.arange(len(encoding.ids)), encoding.lengths - 2]
        sites = tuple(site.name for site in model.sites() if site.role == "value" and site.reads == "tokens")
        return Decomposing(self, last, sites, strength)


@dataclass(frozen=True)
class Decomposing:
    """Values without a concept's directions, from the states of its words' last tokens [words, width]."""

    options: AdaVD
    last: Tensor
    sites: tuple[str, ...]
    strength: float

    def attached(self, pipe: Any) -> AbstractContextManager[None]:
        return hooked((layer_of(pipe, site), self._hook) for site in self.sites)

    def begin(self, pipe: Any, batch: Prompted) -> Guided:
        return Free(batch)

    def _hook(self, module: nn.Linear, inputs: tuple[Tensor, ...], values: Tensor) -> Tensor:
        concepts = nn.functional.linear(self.last.to(values.dtype), module.weight, module.bias)
        left = decomposed(values[:, 1:], concepts, options=self.options, strength=self.strength)
        return torch.cat([values[:, :1], left], 1)


def decomposed(values: Tensor, concepts: Tensor, *, options: AdaVD, strength: float = 1.0) -> Tensor:
    """The values [..., width] with the concepts' values [concepts, width] taken out as far as they are alike."""
    directions = torch.linalg.qr(concepts.T)[0].T[: len(concepts)]
    alike = nn.functional.cosine_similarity(values[..., None, :], concepts, dim=-1)
    weights = options.scale * strength * torch.sigmoid(options.slope * (alike - options.centre))
    left: Tensor = values - (weights * (values @ directions.T)) @ directions
    return left
