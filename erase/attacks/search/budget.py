"""What an attack may spend on each prompt, and what it has spent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from erase.errors import BadOption
from erase.sampling.sampler import Sampler


def check_budget(name: str, budget: int, sampler: Sampler) -> None:
    """Raises BadOption for a budget of less than one image."""
    if budget < (least := sampler.evaluations):
        raise BadOption(
            f"the budget of {name} is {budget}; expected {least} or more: one image takes {least} evaluations "
            f"({sampler.steps} steps)."
        )


@dataclass
class Ledger:
    """Evaluations of the denoising network and judged images of each prompt, and how many of either it may take.

    A forward pass of one sample is one evaluation, its backward pass two more, an image its steps times the predictions
    of each. `images` bounds a control, which gets as many judged images as the attack that it stands beside has taken.
    """

    limit: int
    images: Sequence[int] | None = None
    prompts: int = 0
    evaluations: list[int] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = self.prompts or len(self.images or ())
        self.evaluations, self.judged = [0] * count, [0] * count

    def charge(self, numbers: Iterable[int], evaluations: int, *, images: int = 0) -> None:
        """Books what each of some prompts has cost; `images` of it were judged."""
        for number in numbers:
            self.evaluations[number] += evaluations
            self.judged[number] += images

    def add(self, numbers: Sequence[int], other: Ledger) -> None:
        """Books what another ledger says of some prompts, in their order."""
        for place, number in enumerate(numbers):
            self.charge([number], other.evaluations[place], images=other.judged[place])

    def charge_training(self, name: str, *, evaluations: int, image: int) -> None:
        """Books a training's evaluations, which the prompts share; `image`: what an image costs.

        Raises BadOption where no image would be left of the budget.
        """
        count = len(self.evaluations)
        price = -(-evaluations // count)
        if price + image > self.limit:
            raise BadOption(
                f"{name}: the training costs each of {count} prompts {price} evaluations, and an image {image}; the "
                f"budget is {self.limit}: raise it, or take fewer steps."
            )
        self.charge(range(count), price)

    def affords(self, number: int, evaluations: int, *, images: int = 0) -> bool:
        """Whether a prompt may spend so much more."""
        if self.images is not None:
            return self.judged[number] + images <= self.images[number]
        return self.evaluations[number] + evaluations <= self.limit
