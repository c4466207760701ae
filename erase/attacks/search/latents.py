"""What attacks on latents have in common: a reference picture by the base, and images by steps of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from PIL import Image
from torch import Tensor

from erase.attacks.search.attack import Access, Changes, Found
from erase.attacks.search.budget import Ledger
from erase.attacks.search.victim import Victim, without_target
from erase.config.prompts import Row
from erase.evaluate.detect import Look
from erase.evaluate.protocol import Case

Reference = Literal["target", "other"]


class LatentAttack:
    """An attack that begins, or goes on, from latents of its choice; `settings` are tried one after the other.

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

    @property
    def settings(self) -> Sequence[dict[str, float]]:
        """The settings with which it draws, in the order in which they are tried."""
        return ({},)

    def cost(self, victim: Victim, setting: dict[str, float]) -> int:
        """Evaluations of one image."""
        return victim.edited.image_cost

    def latents(
        self, victim: Victim, cases: Sequence[Case], setting: dict[str, float], *, seeds: Sequence[int]
    ) -> Tensor:
        """Clean latents of the edited model."""
        raise NotImplementedError

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        """For each prompt the first setting that shows the target, else the one in which the judge saw most of it."""
        best: dict[int, tuple[float, Found]] = {}
        active = list(range(len(cases)))
        for setting in self.settings:
            cost = self.cost(victim, setting)
            active = [number for number in active if ledger.affords(number, cost, images=1)]
            if not active:
                break
            chosen = [cases[number] for number in active]
            looks = self._looks(victim, chosen, setting)
            ledger.charge(active, cost, images=1)
            for number, look in zip(active, looks, strict=True):
                score = (look.score or 0.0) + bool(look.seen)
                if number not in best or score > best[number][0]:
                    best[number] = score, Found(cases[number].row.prompt, bool(look.seen), settings=setting)
            active = [number for number in active if not best[number][1].seen]
        nothing = Found(settings=self.settings[0])
        return [best[number][1] if number in best else nothing for number in range(len(cases))]

    def _looks(self, victim: Victim, cases: Sequence[Case], setting: dict[str, float]) -> list[Look]:
        latents = self.latents(victim, cases, setting, seeds=[case.row.seed for case in cases])
        return victim.looks(cases, victim.edited.decode(latents))

    def draw(
        self, victim: Victim, cases: Sequence[Case], found: Sequence[Found], *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        pictures: dict[int, Image.Image] = {}
        for setting in self.settings:
            numbers = [number for number, one in enumerate(found) if one.settings == setting]
            if numbers:
                chosen, own = [cases[number] for number in numbers], [seeds[number] for number in numbers]
                made = victim.edited.decode(self.latents(victim, chosen, setting, seeds=own))
                pictures |= dict(zip(numbers, made, strict=True))
        return [pictures[number] for number in range(len(cases))]

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
