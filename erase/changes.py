"""What an edit changes weights by: a map of the prompt's states, or a product of two factors, perhaps behind a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextMap:
    """`M = I + up @ down` on the prompt's states, written into weights as `W' = W M`.

    `up` is [width, rank], `down` [rank, width]; `sites` are the names of the weights that take it.
    """

    up: Tensor
    down: Tensor
    sites: tuple[str, ...]

    @property
    def rank(self) -> int:
        return int(self.up.shape[1])

    def matrix(self) -> Tensor:
        """`M`, [width, width] float64."""
        return torch.eye(len(self.up), dtype=torch.float64) + self.up.double() @ self.down.double()

    def delta(self, weight: Tensor) -> Tensor:
        """What a site's weight [rows, columns] changes by, in float64; its first `width` columns read the states.

        Weights of half precision are multiplied in float32.
        """
        return torch.nn.functional.pad(self._change(weight).double(), (0, weight.shape[1] - len(self.up)))

    def add_delta(self, total: Tensor, weight: Tensor) -> None:
        """Adds to a float64 total what a site's weight changes by."""
        total[:, : len(self.up)] += self._change(weight)

    def _change(self, weight: Tensor) -> Tensor:
        kind = torch.float32 if weight.element_size() == 2 else torch.float64
        change = weight[:, : len(self.up)].to(kind)
        for factor in self._factors(kind):
            change = change @ factor
        return change

    def _factors(self, kind: torch.dtype) -> tuple[Tensor, ...]:
        """What a weight is multiplied with, one after the other: one product where that is fewer operations."""
        return (self._whole.to(kind),) if 2 * self.rank > len(self.up) else (self.up.to(kind), self.down.to(kind))

    @cached_property
    def _whole(self) -> Tensor:
        """M - I, [width, width] float64."""
        return self.up.double() @ self.down.double()


@dataclass(frozen=True)
class Gate:
    """What sets the strength of a change for each prompt while images are made: a method's gate, opened by words."""

    method: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class LowRank:
    """`up @ down`, added to one weight in that weight's shape.

    `up` is [rows, rank], `down` [rank, columns], where a convolution's columns are its inputs and places together.
    With a `gate` it is at full strength only where weights are written, and otherwise as far as a prompt opens it.
    """

    up: Tensor
    down: Tensor
    site: str
    gate: Gate | None = None

    def delta(self, weight: Tensor) -> Tensor:
        """What the site's weight changes by, in float64."""
        return (self.up.double() @ self.down.double()).view(weight.shape)


class Applied:
    """Weights that an edit has changed, and what they were."""

    def __init__(self, named: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
        self._named, self._before = named, dict(before)

    def undo(self) -> None:
        """Puts the old weights back, bit for bit; a second call does nothing."""
        for name, value in self._before.items():
            self._named[name].data.copy_(value)
        self._before = {}

    def __enter__(self) -> Applied:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()
