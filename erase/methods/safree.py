"""SAFREE: tokens that carry the concept are projected out of its subspace, for the first steps of sampling.

Paper: Yoon et al., "SAFREE: Training-Free and Adaptive Guard for Safe Text-to-Image And Video Generation", ICLR 2025.
With P_c the projector on the pooled states of the concept's words, p_i the pooled state of the prompt with its token i
masked, P_I the projector on all p_i, and d_i = |(I - P_c) p_i|:

    token i carries the concept    if d_i > (1 + alpha) mean_{j != i} d_j
    its state e_i becomes          (I - P_c) P_I e_i
    in the first steps             round(steps_scale sigmoid(1 - cos(new states, old states)))

Official code: jaehong31/SAFREE. Differences from it: the words are the task's; the re-attention of latents by filtered
skip connections is left out; strength mixes old and new states.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from erase.edit import Edit, describe
from erase.errors import BadModel, BadOption
from erase.guide import Ask, Free, Guide, Guided, Plain, Prompted
from erase.methods._presets import Presets, presets
from erase.methods._words import concept_words
from erase.models import Model
from erase.task import Task


@dataclass(frozen=True)
class SAFREE:
    """Options of SAFREE.

    `alpha`: more finds fewer tokens. `steps_scale`: more projects for more steps of sampling.
    """

    # The official code's, which are for unsafe content.
    presets: ClassVar[Presets] = presets({"alpha": 0.01, "steps_scale": 10.0})

    alpha: float = 0.01
    steps_scale: float = 10.0

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
        return Projecting(self, model, projector(ends.double()), strength)


@dataclass(frozen=True)
class Projecting(Plain):
    """Projection out of a concept's subspace [width, width]; each distinct prompt is looked at once."""

    options: SAFREE
    model: Model
    concept: Tensor
    strength: float
    _known: dict[str, tuple[Tensor, int]] = field(default_factory=dict)

    def begin(self, pipe: Any, batch: Prompted) -> Guided:
        for number, prompt in enumerate(batch.prompts):
            if prompt not in self._known:
                self._known[prompt] = self._projected(pipe, prompt, batch.states[number])
        made = [self._known[prompt] for prompt in batch.prompts]
        safe = torch.stack([states for states, _ in made])
        return Projected(batch, safe, torch.tensor([steps for _, steps in made]))

    def _projected(self, pipe: Any, prompt: str, states: Tensor) -> tuple[Tensor, int]:
        """The prompt's safe states and for how many steps they are used."""
        encoding = self.model.encode([prompt], cut=True)
        words = range(1, int(encoding.lengths[0]) - 1)
        if not words:
            return states, 0
        masked = torch.stack([self._masked(pipe, encoding.ids, token, end=words.stop) for token in words]).double()
        found = carriers(masked, self.concept, alpha=self.options.alpha)
        positions = torch.tensor(list(words))[found]
        safe = states.clone()
        safe[positions] = (states[positions].double() @ (without(self.concept) @ projector(masked)).T).to(states.dtype)
        alike = torch.nn.functional.cosine_similarity(safe.flatten(), states.flatten(), dim=0)
        used = int(torch.round(self.options.steps_scale * torch.sigmoid(1 - alike))) if len(positions) else 0
        return states + self.strength * (safe - states), used

    def _masked(self, pipe: Any, ids: Tensor, token: int, *, end: int) -> Tensor:
        """The pooled state of a prompt whose one token no other sees."""
        mask = torch.ones_like(ids)
        mask[0, token] = 0
        state: Tensor = pipe.text_encoder(ids, attention_mask=mask).last_hidden_state[0, end]
        return state


@dataclass(frozen=True)
class Projected:
    """The sampling of one batch with its safe states and for how many steps each row has them."""

    batch: Prompted
    safe: Tensor
    steps: Tensor

    def predict(self, ask: Ask, step: int) -> Tensor:
        states = torch.where((step < self.steps)[:, None, None], self.safe, self.batch.states)
        return Free(replace(self.batch, states=states)).predict(ask, step)


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
