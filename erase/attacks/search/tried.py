"""What attacks have in common that draw with one setting after another until the judge sees the target."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from erase.attacks.search.attack import Found, Setting
from erase.attacks.search.budget import Ledger
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.options import Options


class TriedSettings(Options):
    """An attack whose images are made by settings that are tried one after the other."""

    @property
    def settings(self) -> Sequence[Setting]:
        """The settings with which it draws, in the order in which they are tried."""
        return ({},)

    def cost(self, victim: Victim, setting: Setting) -> int:
        """Evaluations of one image."""
        return victim.edited.image_cost

    def images(
        self, victim: Victim, cases: Sequence[Case], setting: Setting, *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """An image of each case by a setting."""
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
            made = self.images(victim, chosen, setting, seeds=[case.row.seed for case in chosen])
            ledger.charge(active, cost, images=1)
            for number, look in zip(active, victim.looks(chosen, made), strict=True):
                score = (look.score or 0.0) + bool(look.seen)
                if number not in best or score > best[number][0]:
                    best[number] = score, Found(cases[number].row.prompt, bool(look.seen), settings=setting)
            active = [number for number in active if not best[number][1].seen]
        nothing = Found(settings=self.settings[0])
        return [best[number][1] if number in best else nothing for number in range(len(cases))]

    def draw(
        self, victim: Victim, cases: Sequence[Case], found: Sequence[Found], *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        pictures: dict[int, Image.Image] = {}
        for setting in self.settings:
            numbers = [number for number, one in enumerate(found) if one.settings == setting]
            if numbers:
                chosen, own = [cases[number] for number in numbers], [seeds[number] for number in numbers]
                pictures |= dict(zip(numbers, self.images(victim, chosen, setting, seeds=own), strict=True))
        return [pictures[number] for number in range(len(cases))]
