"""What attacks on latents have in common: a reference picture by the base, and images by steps of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from PIL import Image
from torch import Tensor

from erase.attacks.search.attack import Access, Changes, Setting, TriedSettings
from erase.attacks.search.victim import Victim, without_target
from erase.config.prompts import Row
from erase.evaluate.protocol import Case

Reference = Literal["target", "other"]


class LatentAttack(TriedSettings):
    """An attack that begins, or goes on, from latents of its choice.

    `reference`: what the base's picture shows, the target or, as a control, what the target becomes.
    """

    changes: ClassVar[Changes] = "latents"
    access: ClassVar[Access] = "weights"
    shared: ClassVar[bool] = False
    reference: Reference

    @property
    def control(self) -> Any:
        made: Any = self
        return replace(made, reference="other") if self.reference == "target" else None

    def latents(self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]) -> Tensor:
        """Clean latents of the edited model."""
        raise NotImplementedError

    def images(
        self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        return victim.edited.decode(self.latents(victim, cases, setting, seeds=seeds))

    def asked(self, victim: Victim, cases: Sequence[Case]) -> list[str]:
        """The prompts of the reference pictures."""
        if self.reference == "target":
            return [case.row.prompt for case in cases]
        return [without_target(victim, case) for case in cases]

    def pictures(self, victim: Victim, cases: Sequence[Case], *, seeds: Sequence[int]) -> Tensor:
        """Clean latents of the reference pictures, by the base."""
        return victim.base.latents(
            [Row(text, seed) for text, seed in zip(self.asked(victim, cases), seeds, strict=True)]
        )
