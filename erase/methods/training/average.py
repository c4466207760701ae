"""A moving average of what is trained, which an edit takes in place of the last step's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Average:
    """The values of some parameters, which follow them step by step: decay * value + (1 - decay) * parameter."""

    values: dict[str, Tensor]
    parameters: Mapping[str, Tensor]
    decay: float

    @staticmethod
    def of(parameters: Mapping[str, Tensor], decay: float) -> Average:
        """The average of parameters as they are now."""
        return Average({name: value.detach().clone() for name, value in parameters.items()}, parameters, decay)

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {f"average.{name}": value for name, value in self.values.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """Changes the values in place, by one step."""
        for name, value in self.parameters.items():
            self.values[name].mul_(self.decay).add_(value, alpha=1 - self.decay)
