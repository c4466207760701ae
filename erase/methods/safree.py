"""SAFREE: tokens that carry the concept are projected out of its subspace, for the first steps of sampling.

Paper: Yoon et al., "SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image And Video Generation", ICLR 2025.
With P_c the projector on the pooled states of the concept's words, p_i the pooled state of the prompt whose token i has
the id 0 instead of its own, P_I the projector on all p_i, and d_i = |(I - P_c) p_i|:

    token i carries the concept    if d_i > (1 + alpha) mean_{j != i} d_j
    its state e_i becomes          (I - P_c) P_I e_i
    in the first n steps,          n = round(steps_scale sigmoid(slope (beta - centre)))
    where                          beta = 1 - mean_i cos((I - P_c) P_I e_i, e_i)

with the mean over the start token, the prompt's tokens and the first end token; slope and centre are 50 and 0.5333, for
styles 70 and 0.55. Official code: jaehong31/SAFREE. Differences from it:
- it counts steps from 0 and projects up to and including step n, so in one step more, and in one where n is 0; here a
  prompt whose n is 0 is sampled as it always was;
- its script gives the concept's words as the negative prompt, too: that is the option `negative`, off by default;
- the re-attention of latents by filtered skip connections, which it has as a flag, is left out;
- the concept's words are the task's, its artists' constants are for all styles; projectors are computed in float64;
- a model with several text encoders: those that read the same tokens side by side are one, so that Stable Diffusion
  XL has one space, Stable Diffusion 3 two (CLIP's, T5's), FLUX.1 T5's; each is projected by itself, for the most steps
  of any; the pooled state stays;
- strength mixes old and new states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.edit import Edit, describe
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_text, concept_words
from erase.models import Condition, Model, TokenSequence, masked_ends
from erase.options import NotNegative, Options
from erase.sampling.guides import CFG, Ask, Guide, GuidedBatch, NoGuide, PromptBatch
from erase.task import Task

STYLES, OTHERS = (70.0, 0.55), (50.0, 5.333 / 10)  # slope and centre of the steps' sigmoid


@dataclass(frozen=True)
class SAFREE(Options):
    """Options of SAFREE.

    `alpha`: more finds fewer tokens. `steps_scale`: the most steps of sampling in which they are projected.
    `negative`: whether guidance also starts from the concept's words, as with `negative_prompt`.
    """

    # The official code's, which are for unsafe content and artists.
    presets: ClassVar[Presets] = presets({"alpha": 0.01, "steps_scale": 10.0, "negative": True})

    alpha: NotNegative = 0.01
    steps_scale: NotNegative = 10.0
    negative: bool = False

    def __call__(self, model: Model, task: Task) -> Edit:
        model.check_prompts(concept_words(task))
        return Edit(describe(self, model, task), guidance=True)

    def guide(self, model: Model, task: Task, *, strength: float) -> Guide:
        """What projects prompts."""
        concepts = []
        for part in model.encode(concept_words(task)).parts:
            ends = part.states[torch.arange(len(part.ids)), (part.lengths - 1).clamp(min=0)]
            concepts.append(projector(ends.double()))
        sigmoid = STYLES if task.domain == "style" else OTHERS
        away = model.encode([concept_text(model, task)]).conditions()[0] if self.negative else None
        return Projecting(self, model, tuple(concepts), sigmoid, away, strength)


@dataclass(frozen=True)
class Projecting(NoGuide):
    """Projection out of a concept's subspace [width, width] of each part; each distinct prompt is looked at once.

    `sigmoid`: the slope and centre by which steps are counted. `away`: what guidance starts from, None for the empty
    prompt.
    """

    options: SAFREE
    model: Model
    concepts: tuple[Tensor, ...]
    sigmoid: tuple[float, float]
    away: Condition | None
    strength: float
    _known: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        for prompt in batch.prompts:
            if prompt not in self._known:
                self._known[prompt] = self._projected(pipe, prompt)
        made = [self._known[prompt] for prompt in batch.prompts]
        given = batch.given.states
        safe = torch.stack([states for states, _ in made]).to(given)
        if self.away is not None:
            batch = replace(batch, empty=batch.empty.toward(self.away, self.strength))
        steps = torch.tensor([steps for _, steps in made], device=given.device)
        return Projected(batch, given + self.strength * (safe - given), steps)

    def _projected(self, pipe: Any, prompt: str) -> tuple[Tensor, int]:
        """The prompt's safe states [tokens, width] and for how many steps they are used: the most of any part."""
        parts = self.model.encode([prompt], cut=True).parts
        made = [self._part(pipe, prompt, part, number=number) for number, part in enumerate(parts)]
        return torch.cat([states for states, _ in made]), max(steps for _, steps in made)

    def _part(self, pipe: Any, prompt: str, part: TokenSequence, *, number: int) -> tuple[Tensor, int]:
        states, first, end = part.states[0], part.starts, int(part.lengths[0]) - 1
        if end <= first:
            return states, 0
        concept, masked = self.concepts[number], masked_ends(pipe, prompt, number).double()
        away = without(concept) @ projector(masked)
        moved = states.double() @ away.T
        carries = torch.zeros(len(states), dtype=torch.bool)
        carries[first:end] = carriers(masked, concept, alpha=self.options.alpha)
        own, projected = states[: end + 1].double(), moved[: end + 1]
        used = steps_of(own, projected, most=self.options.steps_scale, sigmoid=self.sigmoid)
        return torch.where(carries[:, None], moved.to(states.dtype), states), used


@dataclass(frozen=True)
class Projected:
    """The sampling of one batch with its safe states and for how many steps each row has them."""

    batch: PromptBatch
    safe: Tensor
    steps: Tensor

    def predict(self, ask: Ask, step: int) -> Tensor:
        given = self.batch.given
        states = torch.where((step < self.steps)[:, None, None], self.safe, given.states)
        return CFG(replace(self.batch, given=replace(given, states=states))).predict(ask, step)


def projector(rows: Tensor) -> Tensor:
    """The orthogonal projector on the span of some rows, [width, width]."""
    matrix: Tensor = torch.linalg.pinv(rows) @ rows
    return matrix


def without(concept: Tensor) -> Tensor:
    """The projector on all that a projector's span does not hold."""
    return torch.eye(len(concept), dtype=concept.dtype) - concept


def carriers(masked: Tensor, concept: Tensor, *, alpha: float) -> Tensor:
    """Which tokens carry the concept, [tokens] of true and false, from pooled states with each masked [tokens, width].

    Without its carrier a prompt is further away from the concept than without any other token.
    """
    if len(masked) < 2:
        return torch.ones(len(masked), dtype=torch.bool)
    distances = (masked @ without(concept).T).norm(dim=1)
    others = (distances.sum() - distances) / (len(distances) - 1)
    found: Tensor = distances > (1 + alpha) * others
    return found


def steps_of(states: Tensor, moved: Tensor, *, most: float, sigmoid: tuple[float, float]) -> int:
    """In how many steps a prompt is projected, by how far its states [tokens, width] are from the projected ones."""
    slope, centre = sigmoid
    beta = 1 - float(torch.nn.functional.cosine_similarity(moved, states).mean())
    return round(most / (1 + math.exp(-slope * (beta - centre))))
