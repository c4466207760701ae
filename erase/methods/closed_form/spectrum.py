"""The map that brings old states to new ones and moves kept ones least, for every lamb at once, from second moments.

Over pairs of states o, n and a second moment H of kept states, with (M - I) C = 0 for fixed states C, the minimum of

    sum |(M - I) o - (n - o)|^2  +  lamb tr((M - I) H (M - I)^T)

depends on the pairs through G = sum o o^T and R = sum (n - o) o^T alone. With Q an orthonormal basis of what C leaves,
Q^T H Q = L L^T, X = Q L^-T and X^T G X = F diag(s) F^T, it is

    M - I = U diag(1 / (s + lamb)) V,    U = R X F,  V = (X F)^T,

so that one decomposition serves every lamb, and what a map leaves of other pairs, or moves of other kept states, is a
quadratic form in g = 1 / (s + lamb).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.methods.closed_form.ridge import Factors, gram, span

TINY = 1e-9  # relative size below which a direction counts as none
NOTHING = 1e-12  # share of the targets' energy that counts as nothing
STEPS = 85  # lambs that are tried, evenly by their logarithm
USUAL = 0.01  # the share where there is nothing to judge it by
LEAST, MOST = 1e-6, 10.0  # the smallest and the largest, as shares of the largest s


@dataclass(frozen=True)
class Moments:
    """Second moments of pairs of states in float64: `old` G, `cross` R, and `way` the sum of (n - o)(n - o)^T."""

    old: Tensor
    cross: Tensor
    way: Tensor
    count: int

    @staticmethod
    def of(old: Tensor, new: Tensor) -> Moments:
        """Of old states and the new ones they become, [pairs, width] each."""
        old, way = old.double(), new.double() - old.double()
        return Moments(gram(old), way.T @ old, gram(way), len(old))

    @staticmethod
    def none(width: int) -> Moments:
        """Of no pairs."""
        return Moments.of(torch.empty(0, width), torch.empty(0, width))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.old + other.old, self.cross + other.cross, self.way + other.way, self.count + other.count)


@dataclass(frozen=True)
class Spectrum:
    """`up` U [width, rank], `down` V [rank, width] and `sizes` s [rank] of one problem."""

    up: Tensor
    down: Tensor
    sizes: Tensor

    def gains(self, share: float | Tensor) -> Tensor:
        """g, [..., rank], for lamb as a share of the largest s."""
        return 1 / (self.sizes + torch.as_tensor(share, dtype=torch.float64)[..., None] * self.sizes.max())

    def factors(self, share: float) -> Factors:
        """Factors of M - I for lamb as a share of the largest s."""
        return self.up * self.gains(share), self.down

    def left(self, gains: Tensor, pairs: Moments) -> Tensor:
        """The sum of |M o - n|^2 over pairs, [...], for gains [..., rank]."""
        squared = (self.up.T @ self.up) * (self.down @ pairs.old @ self.down.T)
        straight = ((self.up.T @ pairs.cross) * self.down).sum(1)
        return (gains @ squared * gains).sum(-1) - 2 * gains @ straight + pairs.way.trace()

    def moved(self, gains: Tensor, kept: Tensor) -> Tensor:
        """tr((M - I) H (M - I)^T), [...], for gains [..., rank]."""
        squared = (self.up.T @ self.up) * (self.down @ kept @ self.down.T)
        return (gains @ squared * gains).sum(-1)


def spectrum(pairs: Moments, kept: Tensor, *, free: Tensor, floor: float) -> Spectrum | None:
    """The problem's decomposition; None if what is fixed leaves nothing of the old states.

    `kept` is H [width, width], to which `floor` times its mean direction is added; `free` is Q [width, directions].
    """
    if float((free.T @ pairs.old @ free).trace()) <= NOTHING * float(pairs.old.trace()):
        return None
    within = free.T @ kept @ free
    within += floor * kept.trace() / len(kept) * torch.eye(len(within), dtype=torch.float64)
    lower = torch.linalg.cholesky(within)
    whiten = torch.linalg.solve_triangular(lower, free.T, upper=False).T
    sizes, turned = torch.linalg.eigh(whiten.T @ pairs.old @ whiten)
    seen = sizes > TINY * sizes[-1]
    down = (whiten @ turned[:, seen]).T
    return Spectrum(pairs.cross @ down.T, down, sizes[seen])


def best_share(
    folds: Sequence[Moments], kept: Sequence[Tensor], *, free: Tensor, floor: float, balance: float
) -> float:
    """The lamb, as a share of the largest s, that is best for pairs and keeps that it was not solved for.

    Each of two folds is solved by itself and judged by the other: by what it leaves of the other's pairs, and `balance`
    times how far it moves the other's kept states, both as means of a state.
    """
    shares = torch.logspace(torch.tensor(LEAST).log10(), torch.tensor(MOST).log10(), STEPS, dtype=torch.float64)
    total = torch.zeros(STEPS, dtype=torch.float64)
    for here, there in ((0, 1), (1, 0)):
        found = spectrum(folds[here], kept[here], free=free, floor=floor)
        if found is None or not folds[there].count:
            continue
        gains, unit = found.gains(shares), folds[there].way.trace() / folds[there].count
        total += found.left(gains, folds[there]) / folds[there].way.trace()
        total += balance * found.moved(gains, kept[there]) / unit
    return float(shares[total.argmin()]) if bool(total.any()) else USUAL


def complement(states: Tensor) -> Tensor:
    """An orthonormal basis of all that is orthogonal to these states [states, width], [width, directions]."""
    if not len(states):
        return torch.eye(states.shape[1], dtype=torch.float64)
    basis = span(states.double())
    whole: Tensor = torch.linalg.qr(basis, mode="complete")[0]
    return whole[:, basis.shape[1] :]


def main_directions(moment: Tensor, share: float) -> Tensor:
    """The fewest principal directions that hold this share of a second moment, [width, directions]."""
    sizes, directions = torch.linalg.eigh(moment)
    sizes, directions = sizes.flip(0).clamp(min=0), directions.flip(1)
    count = int((sizes.cumsum(0) < share * sizes.sum() * (1 - TINY)).sum()) + (share > 0)
    main: Tensor = directions[:, : min(count, int((sizes > TINY * sizes[0]).sum()))]
    return main
