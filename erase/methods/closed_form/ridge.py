"""The ridge problem that all closed forms share, solved once for every layer.

Over all sites W, keys and values alike, the closed forms minimise

    sum_i a |W' o_i - W n_i|^2  +  |(W' - W) H^(1/2)|^2  +  lamb |W' - W|^2

for old states o, new states n, and H = sum_j p r_j r_j^T over kept states r. The solution is W' = W M with one M for
all W,

    M = I + a (N - O) O^T B^-1,    B = lamb I + a O O^T + H,

and, with states c that must not move at all (M C = C), B^-1 is replaced by

    P = B^-1 - B^-1 C (C^T B^-1 C)^-1 C^T B^-1.

A map M - I is held in two factors, `up` [width, rank] and `down` [rank, width].
"""

from __future__ import annotations

import torch
from torch import Tensor

SAME = 1e-6  # relative size below which a direction counts as none

Factors = tuple[Tensor, Tensor]


def solve(
    old: Tensor, new: Tensor, held: Tensor, *, erase_scale: float, lamb: float, exact: Tensor | None = None
) -> Factors:
    """Factors of M - I in float64, of rank at most that of the old states.

    `old` and `new` are [pairs, width], `held` is H [width, width], `exact` [states, width].
    """
    old = old.double()
    down = responses(old, held, erase_scale=erase_scale, lamb=lamb, exact=exact)
    return smaller(erase_scale * (new.double() - old).T, down)


def responses(old: Tensor, held: Tensor, *, erase_scale: float, lamb: float, exact: Tensor | None = None) -> Tensor:
    """O^T P in float64, [pairs, width]: how much of each old state another state counts as."""
    old = old.double()
    system = erase_scale * old.T @ old
    system += held.double()
    system.diagonal().add_(lamb)
    factor = torch.linalg.cholesky(system)
    del system
    down: Tensor = torch.cholesky_solve(old.T, factor).T
    if exact is None or not len(exact):
        return down
    fixed = span(exact.double())
    solved = torch.cholesky_solve(fixed, factor)
    down -= (down @ fixed) @ torch.linalg.solve(fixed.T @ solved, solved.T)
    return down


def span(states: Tensor) -> Tensor:
    """An orthonormal basis of the states' span, [width, rank]."""
    _, sizes, right = torch.linalg.svd(states, full_matrices=False)
    basis: Tensor = right[sizes > SAME * sizes[0]].T
    return basis


def gram(states: Tensor) -> Tensor:
    """The sum of r r^T over states [states, width] in float64, [width, width]."""
    states = states.double()
    return states.T @ states


def smaller(up: Tensor, down: Tensor) -> Factors:
    """The same map in factors whose rank is at most the width."""
    width = len(up)
    # The product beside an identity loses nothing when cast to float32; other factors of it cancel badly.
    return (up, down) if up.shape[1] <= width else (up @ down, torch.eye(width, dtype=up.dtype))


def compose(first: Factors, second: Factors) -> Factors:
    """Factors of M1 M2 - I, for weights W M1 M2."""
    (up, down), (more_up, more_down) = first, second
    return smaller(torch.cat([up, more_up + up @ (down @ more_up)], 1), torch.cat([down, more_down]))


def matrix(factors: Factors) -> Tensor:
    """M itself, [width, width]."""
    up, down = factors
    return torch.eye(len(up), dtype=up.dtype) + up @ down
