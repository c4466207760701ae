"""The ridge problem that all closed forms share, solved once for every layer.

Over all sites W, keys and values alike, the closed forms minimise

    sum_i a |W' o_i - W n_i|^2  +  sum_j p |W' r_j - W r_j|^2  +  lamb |W' - W|^2

for old states o, new states n and kept states r. The solution is W' = W M with one M for all W,

    M = I + a (N - O) O^T B^-1,    B = lamb I + a O O^T + p R R^T,

and, with states c that must not move at all (M C = C), B^-1 is replaced by

    P = B^-1 - B^-1 C (C^T B^-1 C)^-1 C^T B^-1.
"""

from __future__ import annotations

import torch
from torch import Tensor

SAME = 1e-6  # relative size below which a direction counts as none


def solve(
    old: Tensor,
    new: Tensor,
    keep: Tensor,
    *,
    erase_scale: float,
    preserve_scale: float,
    lamb: float,
    exact: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Factors `up` [width, rank] and `down` [rank, width] of M - I in float64, of rank at most that of the old states.

    `old` and `new` are [pairs, width], `keep` [kept, width], `exact` [states, width].
    """
    old, new, keep = old.double(), new.double(), keep.double()
    system = erase_scale * old.T @ old + preserve_scale * keep.T @ keep
    system += lamb * torch.eye(old.shape[1], dtype=torch.float64)
    factor = torch.linalg.cholesky(system)
    down = torch.cholesky_solve(old.T, factor).T
    if exact is not None and len(exact):
        fixed = span(exact.double())
        solved = torch.cholesky_solve(fixed, factor)
        down = down - (down @ fixed) @ torch.linalg.solve(fixed.T @ solved, solved.T)
    up = erase_scale * (new - old).T
    return (up, down) if len(old) <= old.shape[1] else compress(up, down)


def span(states: Tensor) -> Tensor:
    """An orthonormal basis of the states' span, [width, rank]."""
    _, sizes, right = torch.linalg.svd(states, full_matrices=False)
    basis: Tensor = right[sizes > SAME * sizes[0]].T
    return basis


def compress(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The same product in factors of its own rank."""
    left, sizes, right = torch.linalg.svd(up @ down)
    rank = max(1, int((sizes > 1e-12 * sizes[0]).sum()))
    return left[:, :rank] * sizes[:rank], right[:rank]
