"""Random states and literal published updates, one layer and one vector at a time, to compare the methods to."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTH = 24


def states(count: int, seed: int, *, width: int = WIDTH) -> Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def relative(given: Tensor, expected: Tensor) -> float:
    """The distance of two matrices over the size of the expected one."""
    return float((given.double() - expected).norm() / expected.norm())


def ridge_step(
    start: Tensor, olds: Tensor, news: Tensor, *, keeps: Tensor, scales: tuple[float, float, float]
) -> Tensor:
    """One layer's (lamb W + a sum W n o^T + p sum W r r^T)(lamb I + a sum o o^T + p sum r r^T)^-1 from W = `start`."""
    erase, hold, lamb = scales
    mat1, mat2 = lamb * start, lamb * torch.eye(start.shape[1], dtype=torch.float64)
    for old, new in zip(olds.double(), news.double(), strict=True):
        mat1 = mat1 + erase * torch.outer(start @ new, old)
        mat2 = mat2 + erase * torch.outer(old, old)
    for kept in keeps.double():
        mat1 = mat1 + hold * torch.outer(start @ kept, kept)
        mat2 = mat2 + hold * torch.outer(kept, kept)
    return mat1 @ torch.linalg.inv(mat2)
