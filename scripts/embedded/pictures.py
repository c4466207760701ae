"""Disturbed icons for whoever must recognise them: moved, scaled, recoloured, blurred."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample
from training import SIDE


def placed(icon: Tensor, *, down: float, right: float, scale: float) -> Tensor:
    """The 64 x 64 view of a padded icon [3, 72, 72], moved by pixels and scaled about the middle; white outside."""
    padded, zoom = icon.shape[-1], SIDE / icon.shape[-1] / scale
    shift = (-2 * right / padded / scale, -2 * down / padded / scale)
    matrix = torch.tensor([[[zoom, 0.0, shift[0]], [0.0, zoom, shift[1]]]], dtype=torch.float32)
    grid = affine_grid(matrix, [1, 3, SIDE, SIDE], align_corners=False)
    return 1 - grid_sample(1 - icon[None], grid, align_corners=False)[0]


Range = tuple[float, float]
# Pixels of a shift, and scales, that the style classifier is trained on; the gaps are left for testing them.
JUDGE_SHIFTS: tuple[Range, ...] = ((0.0, 4.9), (6.1, 8.0))
JUDGE_SCALES: tuple[Range, ...] = ((0.70, 0.79), (0.87, 1.16), (1.23, 1.35))


def disturbed(icon: Tensor, rng: np.random.Generator) -> Tensor:
    """A random view of an icon as the CLIPs and the object classifier are trained on it, [3, 64, 64] in -1 .. 1."""
    down, right = rng.uniform(-5, 5, 2)
    view = placed(icon, down=down, right=right, scale=math.exp(rng.uniform(-0.15, 0.15)))
    return recoloured(view, rng)


def widely_disturbed(icon: Tensor, rng: np.random.Generator) -> Tensor:
    """A random view as the style classifier is trained on it: moved and scaled further, but for the gaps."""
    down, right = (within(JUDGE_SHIFTS, rng) * rng.choice([-1, 1]) for _ in range(2))
    view = placed(icon, down=down, right=right, scale=within(JUDGE_SCALES, rng))
    return recoloured(view, rng)


def within(ranges: Sequence[Range], rng: np.random.Generator) -> float:
    """A uniform number from a union of ranges."""
    widths = np.array([high - low for low, high in ranges])
    low, high = ranges[rng.choice(len(ranges), p=widths / widths.sum())]
    return float(rng.uniform(low, high))


def recoloured(view: Tensor, rng: np.random.Generator) -> Tensor:
    """A view tinted, brightened or darkened, perhaps softened, and with noise."""
    gain = torch.from_numpy(rng.uniform(0.85, 1.0, 3)).float()[:, None, None]
    view = 1 - (1 - view) * gain + float(rng.uniform(-0.2, 0.06))
    if rng.random() < 0.3:
        soft = avg_pool2d(view[None], 3, 1, 1, count_include_pad=False)[0]
        view = torch.lerp(view, soft, float(rng.uniform(0.2, 1.0)))
    noise = np.float32(rng.uniform(0, 0.08)) * rng.standard_normal(view.shape, dtype=np.float32)
    return view + torch.from_numpy(noise)
