"""Low-rank additions whose strength each prompt sets while it is sampled.

Lyu et al., "One-dimensional Adapter to Rule Them All", CVPR 2024, section 3.4: for prompt p and concept c, the larger
of the cosine of their token states, all in one row, and the share of c's tokens that stand in p. It holds for the whole
sampling, the empty prompt's half of guidance included. Official code: Con6924/SPM, `infer_spm.py` (Apache-2.0). There
both factors of a membrane are multiplied by it, so that a share m opens by its square, and several concepts' factors
are summed before they are multiplied; here the membranes themselves are, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from erase.edit import LowRank
from erase.methods.training.adapters import Adapter
from erase.models import Model
from erase.sampling.guides import CFG, Ask, GuidedBatch, Hook, PromptBatch, hooked, layer_of


@dataclass
class Membranes:
    """Additions to a network's layers behind one gate, and the words by which prompts open it."""

    low_rank: Sequence[LowRank]
    words: tuple[str, ...]
    shares: Tensor = field(default_factory=lambda: torch.ones(1))  # of the rows that the network is asked for now

    def hooks(self, pipe: Any) -> Iterator[tuple[nn.Module, Hook]]:
        """Each layer with what adds to its output."""
        for one in self.low_rank:
            layer = layer_of(pipe, one.site)
            yield layer, self._hook(layer, one)

    def _hook(self, layer: Any, one: LowRank) -> Hook:
        adapter = Adapter(layer, one.up.to(layer.weight), one.down.to(layer.weight), 1.0)

        def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            shares = self.shares.to(output).view(-1, *[1] * (output.dim() - 1))
            return output + shares * adapter.added(inputs[0])

        return add


@dataclass(frozen=True)
class GatedMembranes:
    """Membranes of one edit or of a sum of several, each set behind its own gate."""

    model: Model
    sets: tuple[Membranes, ...]

    def attached(self, pipe: Any) -> AbstractContextManager[None]:
        """The pipeline with the additions, until the block ends."""
        return hooked(hook for one in self.sets for hook in one.hooks(pipe))

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        prompts = dict.fromkeys(batch.prompts)
        opened = [{prompt: openness(self.model, prompt, one.words) for prompt in prompts} for one in self.sets]
        rows = batch.prompts if batch.guidance <= 1 else batch.prompts * 2
        shares = tuple(torch.tensor([shares[prompt] for prompt in rows]) for shares in opened)
        return GatedBatch(self, batch, shares)


@dataclass(frozen=True)
class GatedBatch:
    """The sampling of one batch under its rows' shares, one tensor [rows] for each gate."""

    gated: GatedMembranes
    batch: PromptBatch
    shares: tuple[Tensor, ...]

    def predict(self, ask: Ask, step: int) -> Tensor:
        for one, shares in zip(self.gated.sets, self.shares, strict=True):
            one.shares = shares
        return CFG(self.batch).predict(ask, step)


def openness(model: Model, prompt: str, words: Sequence[str]) -> float:
    """How far a prompt opens the gate, 0 to 1: the most over some words."""
    encoding = model.encode([prompt, *words], cut=True)
    states = encoding.states.flatten(1)
    alike = torch.nn.functional.cosine_similarity(states[:1], states[1:]).clamp(min=0)
    part = encoding.parts[0]
    tokens = [set(row[part.starts : int(end) - 1].tolist()) for row, end in zip(part.ids, part.lengths, strict=True)]
    shared = [len(one & tokens[0]) / max(len(one), 1) for one in tokens[1:]]
    return max(float(alike.max()), *shared)
