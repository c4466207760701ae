"""Low-rank additions whose strength each prompt sets while it is sampled.

Lyu et al., "One-dimensional Adapter to Rule Them All", CVPR 2024, section 3.4: for prompt p and concept c, the larger
of the cosine of their token states, all in one row, and the share of c's tokens that stand in p.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from erase.edit import LowRank
from erase.guide import Ask, Free, Guided, Hook, Prompted, hooked, layer_of
from erase.methods._adapters import Adapter
from erase.models import Model


@dataclass
class Gate:
    """Additions to a network's layers, and the words by which prompts open the gate."""

    low_rank: Sequence[LowRank]
    model: Model
    words: tuple[str, ...]
    shares: Tensor = field(default_factory=lambda: torch.ones(1))  # of the rows that the network is asked for now

    def attached(self, pipe: Any) -> AbstractContextManager[None]:
        """The pipeline with the additions, until the block ends."""
        return hooked((layer, self._hook(layer, one)) for one in self.low_rank for layer in [layer_of(pipe, one.site)])

    def begin(self, pipe: Any, batch: Prompted) -> Guided:
        opened = {prompt: openness(self.model, prompt, self.words) for prompt in dict.fromkeys(["", *batch.prompts])}
        shares = torch.tensor([opened[prompt] for prompt in batch.prompts])
        return GatedBatch(self, batch, shares, torch.full_like(shares, opened[""]))

    def _hook(self, layer: Any, one: LowRank) -> Hook:
        adapter = Adapter(layer, one.up.to(layer.weight.dtype), one.down.to(layer.weight.dtype), 1.0)

        def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shares = self.shares.to(output.dtype).view(-1, *[1] * (output.dim() - 1))
            return output + shares * adapter.added(inputs[0])

        return add


@dataclass(frozen=True)
class GatedBatch:
    """The sampling of one batch under its prompts' shares, and the empty prompt's."""

    gate: Gate
    batch: Prompted
    shares: Tensor
    empty: Tensor

    def predict(self, ask: Ask, step: int) -> Tensor:
        self.gate.shares = self.shares if self.batch.guidance <= 1 else torch.cat([self.empty, self.shares])
        return Free(self.batch).predict(ask, step)


def openness(model: Model, prompt: str, words: Sequence[str]) -> float:
    """How far a prompt opens the gate, 0 to 1: the most over some words."""
    encoding = model.encode([prompt, *words], cut=True)
    states = encoding.states.flatten(1)
    alike = torch.nn.functional.cosine_similarity(states[:1], states[1:]).clamp(min=0)
    tokens = [set(row[1 : int(end) - 1].tolist()) for row, end in zip(encoding.ids, encoding.lengths, strict=True)]
    shared = [len(one & tokens[0]) / max(len(one), 1) for one in tokens[1:]]
    return max(float(alike.max()), *shared)
