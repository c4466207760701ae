"""Merging: the edited model is averaged with another fine-tune of the same base, which still knows the target.

People merge checkpoints, and a merge takes a share of the edit away: with weights W + D of the edited model and
W + F of the other, the average is W + (1 - s) D + s F. `how: add_difference` adds s F to the edited model instead,
which leaves D whole. Where no other model is given, it is the base, trained a little on pictures of something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from erase.attacks.relearn import Relearn, benign_prompts, fine_tuned
from erase.attacks.search.attack import Found, Setting
from erase.attacks.search.budget import Ledger
from erase.attacks.search.victim import Victim
from erase.attacks.search.weights import WeightAttack, matrices
from erase.errors import ModelMismatch
from erase.evaluate.protocol import Case
from erase.options import Rate


@dataclass(frozen=True)
class MergeProbe(WeightAttack):
    """Options of merging.

    `shares`: of the other model, tried in this order. `how`: average, or add_difference. `other`: another fine-tune of
    the same base, as `--base` takes one. `steps`, `rate`: of the one that is made where none is given.
    """

    shares: tuple[Rate, ...] = (0.3, 0.5, 0.7)
    how: Literal["average", "add_difference"] = "average"
    other: str = ""
    steps: int = 100
    rate: float = 1e-4

    @property
    def settings(self) -> Sequence[Setting]:
        return [{"share": share} for share in self.shares]

    def __call__(self, victim: Victim, cases: Sequence[Case], ledger: Ledger) -> list[Found]:
        self._other(victim, cases)
        return super().__call__(victim, cases, ledger)

    def weights(self, victim: Victim, setting: Setting) -> Mapping[str, Tensor]:
        share, other, base = setting["share"], self._other(victim, ()), matrices(victim.base)
        edited = matrices(victim.edited)
        if self.how == "average":
            return {name: (1 - share) * value + share * other.get(name, base[name]) for name, value in edited.items()}
        return {name: edited[name] + share * (value - base[name]) for name, value in other.items()}

    def _other(self, victim: Victim, cases: Sequence[Case]) -> Mapping[str, Tensor]:
        """The other model's matrices, of those that differ from the base's at least; made once."""
        return victim.kept("merged", self, lambda: self._opened(victim) if self.other else self._tuned(victim, cases))

    def _tuned(self, victim: Victim, cases: Sequence[Case]) -> dict[str, Tensor]:
        how = Relearn(rank=8, steps=self.steps, rate=self.rate)
        return fine_tuned(victim, victim.base, benign_prompts(victim, cases), how=how)

    def _opened(self, victim: Victim) -> dict[str, Tensor]:
        from erase.models import open_model

        model, known = open_model(self.other), matrices(victim.base)
        network = getattr(model.backbone_alone(), model.backbone)
        found = {f"{model.backbone}.{name}": value.detach() for name, value in network.named_parameters()}
        wrong = [name for name, value in known.items() if name not in found or found[name].shape != value.shape]
        if wrong:
            raise ModelMismatch(
                f"{self.other} has no {wrong[0]} of the base's shape; expected another fine-tune of the same base."
            )
        return {name: found[name] for name in known}
