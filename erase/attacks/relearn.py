"""Relearning: the edited network is trained a little on pictures of something else, as whoever takes it up may do.

ResAlign (Li et al., 2025, arXiv 2507.11564) found that light and benign fine-tuning undoes most erasures: nothing
unsafe is in the data, and what was erased comes back beside it. Here the pictures are the base's, of what the task
keeps, or of what the targets become where it keeps nothing, and none shows a target; by a LoRA or by all weights.
With `pictures: target` they are of the target itself, as who wants it back would take them: how soon it is learned
is then to be read beside a model that never knew it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from erase.attacks.search.attack import Found, Setting
from erase.attacks.search.budget import Ledger
from erase.attacks.search.victim import Side, Victim, without_target
from erase.attacks.search.weights import Tuning, WeightAttack, picture_loss
from erase.config.prompts import Row
from erase.evaluate.protocol import Case
from erase.methods.training.session import spread
from erase.options import Count, Rate, Whole

COUNT = 32  # pictures that are trained on


@dataclass(frozen=True)
class Relearn(WeightAttack):
    """Options of relearning.

    `rank`: of a LoRA on the transformer blocks; 0 trains all weights. `steps`, `batch`, `rate`: of AdamW.
    `pictures`: benign or target.
    """

    gradient: ClassVar[bool] = True

    rank: Whole = 8
    steps: Count = 200
    batch: Count = 4
    rate: Rate = 1e-4
    pictures: Literal["benign", "target"] = "benign"

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        image = victim.edited.image_cost
        ledger.charge_training("relearn", evaluations=self.steps * self.batch * 3, image=image)
        victim.kept("relearned", self, lambda: self._trained(victim, cases))
        return super().__call__(victim, cases, ledger)

    def weights(self, victim: Victim, setting: Setting) -> Mapping[str, Tensor]:
        return victim.kept("relearned", self, dict)

    def _trained(self, victim: Victim, cases: Sequence[Case]) -> dict[str, Tensor]:
        texts = [case.row.prompt for case in cases]
        if self.pictures == "benign":
            texts = benign_prompts(victim, cases)
        return fine_tuned(victim, victim.edited, texts, how=self)


def benign_prompts(victim: Victim, cases: Sequence[Case]) -> list[str]:
    """What the task keeps, or the cases' prompts with what their targets become."""
    return list(victim.task.kept) or list(dict.fromkeys(without_target(victim, case) for case in cases))


def fine_tuned(victim: Victim, side: Side, texts: Sequence[str], *, how: Relearn) -> dict[str, Tensor]:
    """A side's weights after training on the base's pictures of some prompts."""
    prompts = spread(texts, COUNT)
    seeds = victim.generator("pictures").initial_seed() % 2**30
    clean = victim.base.latents([Row(text, seeds + number) for number, text in enumerate(prompts)])
    return Tuning(how.steps, how.rate, how.rank).values(
        side,
        picture_loss(side, clean, prompts, batch=how.batch),
        generator=victim.generator("tuning", how),
        progress=lambda done, total: victim.report("fine-tuning", done, total, unit="steps"),
    )
