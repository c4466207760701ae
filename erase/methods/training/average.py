"""Averages of what is trained, which an edit takes in place of the last step's values: over steps, over trainings."""

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

    @torch.no_grad()
    def begin(self) -> None:
        """Makes it the average of parameters as they are now, in place."""
        for name, value in self.parameters.items():
            self.values[name].copy_(value)

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it."""
        return {f"average.{name}": value for name, value in self.values.items()}

    @torch.no_grad()
    def follow(self) -> None:
        """Changes the values in place, by one step."""
        for name, value in self.parameters.items():
            self.values[name].mul_(self.decay).add_(value, alpha=1 - self.decay)


@dataclass(frozen=True)
class Soup:
    """The mean of what several trainings end in: a uniform soup of models (Wortsman et al. 2022).

    `average` has what one of them ends in; of a single training it is the soup itself.
    """

    average: Average
    values: dict[str, Tensor]

    @staticmethod
    def of(average: Average, trainings: int) -> Soup:
        single = average.values
        return Soup(average, {name: value.clone() for name, value in single.items()} if trainings > 1 else single)

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it, and of the average."""
        if self.values is self.average.values:
            return self.average.state
        return self.average.state | {f"soup.{name}": value for name, value in self.values.items()}

    @torch.no_grad()
    def take(self, training: int) -> None:
        """Takes in what a training has ended in; the first one is 0."""
        for name, value in self.average.values.items():
            self.values[name].lerp_(value, 1 / (training + 1))
