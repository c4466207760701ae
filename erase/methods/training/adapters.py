"""Low-rank additions to layers: trained while the layers themselves stay, switched off to ask the frozen network.

A layer with weight W computes W x + (alpha / rank) up down x (Hu et al. 2022, eq. 3).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from erase.edit import LowRank
from erase.sampling.guides import Hook, hooked

Layer = nn.Linear | nn.Conv2d
_CPU = torch.device("cpu")


@dataclass
class Adapter:
    """One layer's addition: `up` [rows, rank] begins at zero, `down` [rank, columns] at random."""

    layer: Layer
    up: Tensor
    down: Tensor
    scale: float

    def to(self, device: torch.device) -> Adapter:
        """The same on a device, ready to be trained."""
        up, down = (part.to(device).requires_grad_(True) for part in (self.up, self.down))
        return replace(self, up=up, down=down)

    def added(self, inputs: Tensor) -> Tensor:
        """What is added to the layer's output."""
        if isinstance(self.layer, nn.Linear):
            return self.scale * nn.functional.linear(nn.functional.linear(inputs, self.down), self.up)
        kernel = self.down.view(len(self.down), *self.layer.weight.shape[1:])
        settings: Any = (self.layer.stride, self.layer.padding, self.layer.dilation)
        inner = nn.functional.conv2d(inputs, kernel, None, *settings)
        return self.scale * torch.einsum("or,brhw->bohw", self.up, inner)


@dataclass
class Adapters:
    """The additions to some layers of a network, by name."""

    layers: Mapping[str, Adapter]
    strength: float = 1.0

    @staticmethod
    def on(layers: Mapping[str, Layer], *, rank: int, alpha: float, seed: int, device: torch.device = _CPU) -> Adapters:
        """Additions that change nothing yet; each layer's own rank bounds `rank`."""
        generator = torch.Generator().manual_seed(seed)
        made = {name: _adapter(layer, rank=rank, alpha=alpha, generator=generator) for name, layer in layers.items()}
        return Adapters({name: one.to(device) for name, one in made.items()})

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All that is trained, by name."""
        return {f"{name}.{part}": getattr(one, part) for name, one in self.layers.items() for part in ("up", "down")}

    def attached(self) -> AbstractContextManager[None]:
        """The network with the additions, until the block ends."""
        return hooked((one.layer, self._hook(one)) for one in self.layers.values())

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """The frozen network, until the block ends."""
        before, self.strength = self.strength, 0.0
        try:
            yield
        finally:
            self.strength = before

    def low_rank(self, component: str) -> tuple[LowRank, ...]:
        """The additions as an edit holds them, of a network's component."""
        return tuple(
            LowRank((one.scale * one.up).detach().cpu(), one.down.detach().cpu(), f"{component}.{name}.weight")
            for name, one in self.layers.items()
        )

    def _hook(self, one: Adapter) -> Hook:
        def add(layer: Layer, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + self.strength * one.added(inputs[0]) if self.strength else output

        return add


def _adapter(layer: Layer, *, rank: int, alpha: float, generator: torch.Generator) -> Adapter:
    rows, columns = layer.weight.flatten(1).shape
    rank = min(rank, rows, columns)
    bound = math.sqrt(3 / columns)  # the LECO code's: uniform, of variance 1 / columns
    down = (torch.rand(rank, columns, generator=generator) * 2 - 1) * bound
    return Adapter(layer, torch.zeros(rows, rank), down, alpha / rank)
