"""What an attack may spend on each prompt, and what it has spent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


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

    def affords(self, number: int, evaluations: int, *, images: int = 0) -> bool:
        """Whether a prompt may spend so much more."""
        if self.images is not None:
            return self.judged[number] + images <= self.images[number]
        return self.evaluations[number] + evaluations <= self.limit
