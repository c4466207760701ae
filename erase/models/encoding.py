"""Prompts as a model sees them: token states, aligned with the tokens, and a pooled state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenSequence:
    """The tokens of one tokenizer: position by position, which token stands there and which state it has.

    `states` [prompts, tokens, width] float32; `ids` [prompts, tokens]; `lengths` [prompts] counts the start token, the
    words' tokens and the first end token, so the last word's token is at `lengths - 2`. `starts`: tokens in front of
    the first word. `causal`: a state depends on the tokens up to its own alone.
    """

    states: Tensor
    ids: Tensor
    lengths: Tensor
    starts: int = 1
    causal: bool = True

    @property
    def last(self) -> Tensor:
        """Position of each prompt's last word token, -1 where there is no word."""
        last = self.lengths - 2
        return torch.where(last >= self.starts, last, torch.full_like(last, -1))

    @property
    def mask(self) -> Tensor:
        """Which positions hold a prompt's own tokens, start and first end included, and not padding."""
        return torch.arange(self.ids.shape[1]) < self.lengths[:, None]

    def first_difference(self, one: int, other: int) -> int:
        """The first position at which the states of two prompts differ; 0 if they never do."""
        return int((self.ids[one] != self.ids[other]).int().argmax()) if self.causal else 0


@dataclass(frozen=True)
class Encoding:
    """Prompts as the model's sites see them.

    `parts` are the stretches of tokens, one after the other: one in most families, two in Stable Diffusion 3, where
    positions of one have nothing to do with positions of the other. `pooled` [prompts, width] float32 is what the
    sites read that read a pooled state; None where none does.
    """

    parts: tuple[TokenSequence, ...]
    pooled: Tensor | None = None

    @cached_property
    def states(self) -> Tensor:
        """All token states, [prompts, tokens, width] float32."""
        return self.parts[0].states if len(self.parts) == 1 else torch.cat([part.states for part in self.parts], 1)

    @cached_property
    def ids(self) -> Tensor:
        return torch.cat([part.ids for part in self.parts], 1)

    @cached_property
    def mask(self) -> Tensor:
        return torch.cat([part.mask for part in self.parts], 1)

    @property
    def lengths(self) -> Tensor:
        """Lengths in the first stretch."""
        return self.parts[0].lengths

    def conditions(self) -> list[Condition]:
        """Each prompt by itself, as the backbone is given it."""
        pooled = [None] * len(self.states) if self.pooled is None else list(self.pooled)
        return [Condition(states, one) for states, one in zip(self.states, pooled, strict=True)]


def embeddings(given: Condition, empty: Condition | None = None) -> dict[str, Tensor]:
    """Conditions under the names that diffusers' pipelines give them."""
    named = {"prompt_embeds": given.states, "pooled_prompt_embeds": given.pooled}
    if empty is not None:
        named |= {"negative_prompt_embeds": empty.states, "negative_pooled_prompt_embeds": empty.pooled}
    return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Guidance:
    """The settings of a pipeline that say how closely an image follows its prompt.

    `scale`: the pipeline's `guidance_scale`. `true_scale`: its `true_cfg_scale`, where it has one. `negative`: whether
    a negative prompt is given.
    """

    scale: float = 1.0
    true_scale: float = 1.0
    negative: bool = False


@dataclass(frozen=True)
class Condition:
    """What a backbone is given of a prompt: `states` [tokens, width] and, in some families, `pooled` [width]."""

    states: Tensor
    pooled: Tensor | None = None

    @staticmethod
    def stack(conditions: Sequence[Condition]) -> Condition:
        """Several prompts' conditions as one, stacked along a new batch dimension."""
        return Condition.each(lambda *rows: torch.stack(rows), *conditions)

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Several conditions of many rows as one, one behind the other."""
        return Condition.each(lambda *parts: torch.cat(parts), *conditions)

    @staticmethod
    def each(made: Callable[..., Tensor], *conditions: Condition) -> Condition:
        """What is made of the states of some conditions, and, where they have them, of their pooled states."""
        pooled = [one.pooled for one in conditions if one.pooled is not None]
        return Condition(made(*(one.states for one in conditions)), made(*pooled) if pooled else None)

    def row(self, number: int) -> Condition:
        """One of the condition's rows."""
        return Condition.each(lambda rows: rows[number], self)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Condition:
        """The same on a device, in a dtype."""
        return Condition.each(lambda one: one.to(device, dtype), self)

    def toward(self, other: Condition, share: float) -> Condition:
        """The condition, of many rows, moved a share of the way to another, of one."""
        moved = self.states + share * (other.states.to(self.states) - self.states)
        if self.pooled is None or other.pooled is None:
            return Condition(moved, self.pooled)
        return Condition(moved, self.pooled + share * (other.pooled.to(self.pooled) - self.pooled))

    def repeated(self, count: int) -> Condition:
        """The condition of many rows with each of them so many times, one after the other."""
        return Condition.each(lambda rows: rows.repeat_interleave(count, 0), self)

    def zeros(self) -> Condition:
        return Condition.each(torch.zeros_like, self)
