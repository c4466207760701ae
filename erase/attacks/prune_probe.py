"""Pruning: the smallest weights are set to zero, or those that an edit has set to zero are filled again.

Does an edit survive it if its user prunes the model? The smallest values of each matrix become zero, a share of
them. The other way round, "Roots Beneath the Cut" (CVPR 2026) showed that a concept which was erased by setting weights
to zero comes back without data: the zeros say which they were, and their rows and columns what they may have been.
`revive` does so: each matrix in which more than one value in a thousand is zero is completed by the nearest matrix of
low rank, found by filling the gaps with its own truncated decomposition over and over (Mazumder, Hastie and
Tibshirani 2010). The paper's cure, which `filled_zeros` is, takes the hint away: random values of the matrix's own
spread in those places; with `cured` the edited model is attacked after it. Zeros are looked for in the edited weights
alone, as the attacker has no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.attacks.search.attack import Setting
from erase.attacks.search.victim import Victim
from erase.attacks.search.weights import WeightAttack, matrices
from erase.options import Count, Inner

ROUNDS = 30  # of completion
LEAST = 1e-3  # share of a matrix that has to be zero for an edit to have put it there


@dataclass(frozen=True)
class PruneProbe(WeightAttack):
    """Options of pruning.

    `shares`: of each matrix's values, the smallest, that are set to zero, tried in this order. `revive`: whether zeros
    that are found are filled instead, by matrices of `rank`. `cured`: whether they were filled at random before.
    """

    shares: tuple[Inner, ...] = (0.1, 0.3, 0.5)
    revive: bool = False
    rank: Count = 8
    cured: bool = False

    @property
    def settings(self) -> Sequence[Setting]:
        return [{"revive": True}] if self.revive else [{"share": share} for share in self.shares]

    def weights(self, victim: Victim, setting: Setting) -> Mapping[str, Tensor]:
        found = matrices(victim.edited)
        if not self.revive:
            return {name: pruned(value, setting["share"]) for name, value in found.items()}
        if self.cured:
            found = {name: filled_zeros(value, victim.generator("cure", name)) for name, value in found.items()}
        return {name: revived(value, self.rank) for name, value in found.items() if has_gaps(value)}


def pruned(value: Tensor, share: float) -> Tensor:
    """A matrix without its smallest values, a share of all."""
    count = int(share * value.numel())
    if not count:
        return value
    limit = value.abs().flatten().kthvalue(count).values
    return torch.where(value.abs() <= limit, torch.zeros_like(value), value)


def has_gaps(value: Tensor) -> bool:
    """Whether so many values are zero that none of it is chance."""
    return bool((value == 0).float().mean() > LEAST) and bool(value.any())


def filled_zeros(value: Tensor, generator: torch.Generator) -> Tensor:
    """A matrix with random values of its own spread where it is zero."""
    if not has_gaps(value):
        return value
    noise = torch.randn(value.shape, generator=generator).to(value) * value[value != 0].std()
    return torch.where(value == 0, noise, value)


def revived(value: Tensor, rank: int) -> Tensor:
    """A matrix whose zeros are those of the nearest matrix of a rank that has its other values."""
    known = (value != 0).flatten(1)
    rows = value.flatten(1).float()
    found = rows
    for _ in range(ROUNDS):
        left, sizes, right = torch.linalg.svd(found, full_matrices=False)
        completed = (left[:, :rank] * sizes[:rank]) @ right[:rank]
        found = torch.where(known, rows, completed)
    return found.reshape(value.shape).to(value.dtype)
