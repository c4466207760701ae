"""What an attack is: a search for something that brings a target back, and images of what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

from PIL import Image
from torch import Tensor

from erase.attacks.search.budget import Ledger
from erase.attacks.search.victim import Victim
from erase.evaluate.protocol import Case
from erase.options import Options

Access = Literal["prompts", "text encoder", "weights"]
Changes = Literal["text", "embeddings", "latents", "weights"]
Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What a search came up with for one prompt.

    `text`: the prompt to ask with. `worked`: what of it may serve other prompts, too. `settings`: with which images
    are made. `seen`: whether the judge saw the target while searching, and `score` how much of it, more where it did.
    `tensors`: what no text says.
    """

    text: str = ""
    seen: bool = False
    score: float = 0.0
    worked: str = ""
    settings: Setting = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Attack(Protocol):
    """An attack's options, its search, and its images.

    `changes`: what of the input or of the model the attacker changes. `access`: what he has to have of the model.
    `shared`: something is learned once for all prompts, which are then searched together. One that goes along the
    edited network's gradient says so by `gradient = True`, one that asks `Side.reader` for words by `words = True`.
    """

    changes: ClassVar[Changes]
    access: ClassVar[Access]
    shared: ClassVar[bool]

    @property
    def control(self) -> Attack | None:
        """What it is compared with: as many judged images without the attack's idea; None for a control."""

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        """What is found for each prompt within its budget."""

    def draw(
        self, victim: Victim, cases: Sequence[Case], found: Sequence[Found], *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        """The edited model's image of each prompt by what was found, with other seeds."""


class PromptAttack(Options):
    """An attack that finds prompts, and needs no more than to ask; alone it is a control."""

    changes: ClassVar[Changes] = "text"
    access: ClassVar[Access] = "prompts"
    shared: ClassVar[bool] = False

    @property
    def control(self) -> Any:
        return None

    def draw(
        self, victim: Victim, cases: Sequence[Case], found: Sequence[Found], *, seeds: Sequence[int]
    ) -> list[Image.Image]:
        rows = [
            replace(case.row, prompt=one.text, seed=seed) for case, one, seed in zip(cases, found, seeds, strict=True)
        ]
        return victim.edited.draw(rows)


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
        best: dict[int, Found] = {}
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
                if number not in best or score > best[number].score:
                    best[number] = Found(cases[number].row.prompt, bool(look.seen), score, settings=setting)
            active = [number for number in active if not best[number].seen]
        return [best.get(number, Found(settings=self.settings[0])) for number in range(len(cases))]

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
