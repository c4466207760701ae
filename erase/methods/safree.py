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
- strength mixes old and new states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.edit import Edit, describe
from erase.errors import BadModel, BadOption
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_text, concept_words
from erase.models import Model
from erase.sampling.guides import CFG, Ask, Guide, GuidedBatch, NoGuide, PromptBatch
from erase.task import Task

STYLES, OTHERS = (70.0, 0.55), (50.0, 5.333 / 10)  # slope and centre of the steps' sigmoid


@dataclass(frozen=True)
class SAFREE:
    """Options of SAFREE.

    `alpha`: more finds fewer tokens. `steps_scale`: the most steps of sampling in which they are projected.
    `negative`: whether guidance also starts from the concept's words, as with `negative_prompt`.
    """

    # The official code's, which are for unsafe content and artists.
    presets: ClassVar[Presets] = presets({"alpha": 0.01, "steps_scale": 10.0, "negative": True})

    alpha: float = 0.01
    steps_scale: float = 10.0
    negative: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha", "steps_scale"):
            if not getattr(self, name) >= 0:
                raise BadOption(f"safree: {name} is {getattr(self, name)}; expected 0 or more.")

    def __call__(self, model: Model, task: Task) -> Edit:
        if model.text_components != ("text_encoder",):
            raise BadModel(f"safree needs a model with one text encoder; {model.family} has another number.")
        model.check_prompts(concept_words(task))
        return Edit(describe(self, model, task), guidance=True)

    def guide(self, model: Model, task: Task, *, strength: float) -> Guide:
        """What projects prompts."""
        encoding = model.encode(concept_words(task))
        ends = encoding.states[torch.arange(len(encoding.ids)), encoding.lengths - 1]
        sigmoid = STYLES if task.domain == "style" else OTHERS
        away = model.encode([concept_text(model, task)]).states[0] if self.negative else None
        return Projecting(self, model, projector(ends.double()), sigmoid, away, strength)


@dataclass(frozen=True)
class Projecting(NoGuide):
    """Projection out of a concept's subspace [width, width]; each distinct prompt is looked at once.

    `sigmoid`: the slope and centre by which steps are counted. `away`: states [tokens, width] that guidance starts
    from, None for the empty prompt's.
    """

    options: SAFREE
    model: Model
    concept: Tensor
    sigmoid: tuple[float, float]
    away: Tensor | None
    strength: float
    _known: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    def begin(self, pipe: Any, batch: PromptBatch) -> GuidedBatch:
        for prompt in batch.prompts:
            if prompt not in self._known:
                self._known[prompt] = self._projected(pipe, prompt)
        made = [self._known[prompt] for prompt in batch.prompts]
        safe = torch.stack([states for states, _ in made]).to(batch.states)
        if self.away is not None:
            batch = replace(batch, empty=batch.empty + self.strength * (self.away.to(batch.empty) - batch.empty))
        steps = torch.tensor([steps for _, steps in made], device=batch.states.device)
        return Projected(batch, batch.states + self.strength * (safe - batch.states), steps)

    def _projected(self, pipe: Any, prompt: str) -> tuple[Tensor, int]:
        """The prompt's safe states [tokens, width] and for how many steps they are used."""
        encoding = self.model.encode([prompt], cut=True)
        states, length = encoding.states[0], int(encoding.lengths[0])
        if length <= 2:
            return states, 0
        masked = self._masked(pipe, encoding.ids[0], length)
        away = without(self.concept) @ projector(masked)
        moved = states.double() @ away.T
        carries = torch.zeros(len(states), dtype=torch.bool)
        carries[1 : length - 1] = carriers(masked, self.concept, alpha=self.options.alpha)
        used = steps_of(states[:length].double(), moved[:length], most=self.options.steps_scale, sigmoid=self.sigmoid)
        return torch.where(carries[:, None], moved.to(states.dtype), states), used

    def _masked(self, pipe: Any, ids: Tensor, length: int) -> Tensor:
        """The pooled states of a prompt [tokens] with each of its words' tokens masked, [length - 2, width]."""
        rows = ids.repeat(length - 2, 1)
        rows[torch.arange(length - 2), torch.arange(1, length - 1)] = 0
        states: Tensor = pipe.text_encoder(rows.to(pipe.text_encoder.device)).last_hidden_state[:, length - 1]
        return states.cpu().double()


@dataclass(frozen=True)
class Projected:
    """The sampling of one batch with its safe states and for how many steps each row has them."""

    batch: PromptBatch
    safe: Tensor
    steps: Tensor

    def predict(self, ask: Ask, step: int) -> Tensor:
        states = torch.where((step < self.steps)[:, None, None], self.safe, self.batch.states)
        return CFG(replace(self.batch, states=states)).predict(ask, step)


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
