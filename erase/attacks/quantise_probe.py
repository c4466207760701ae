"""Quantising: the edited network's matrices are rounded to the grids in which people load models.

A small edit may be lost where the grid is coarse, for it moves a weight by less than a step. `fp8` is e4m3 as
diffusers and ComfyUI store it, `int8` has a step for each row, largest size over 127, and `int4` one for each 32
values of a row, largest size over 7, as GGUF's Q4_0 but for its sign. Values are rounded and computed with as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from erase.attacks.search.attack import Setting
from erase.attacks.search.victim import Victim
from erase.attacks.search.weights import WeightAttack, matrices

Grid = Literal["fp8", "int8", "int4"]
BLOCK = 32


@dataclass(frozen=True)
class QuantiseProbe(WeightAttack):
    """Options of quantising.

    `grids`: fp8, int8 and int4, tried in this order.
    """

    grids: tuple[Grid, ...] = get_args(Grid)

    @property
    def settings(self) -> Sequence[Setting]:
        return [{"grid": grid} for grid in self.grids]

    def weights(self, victim: Victim, setting: Setting) -> Mapping[str, Tensor]:
        return {name: rounded(value, setting["grid"]) for name, value in matrices(victim.edited).items()}


def rounded(value: Tensor, grid: str) -> Tensor:
    """A matrix [rows, ...] on a grid, in its own dtype."""
    if grid == "fp8":
        return value.to(torch.float8_e4m3fn).to(value.dtype)
    rows = value.flatten(1).float()
    width = rows.shape[1]
    block, most = (width, 127) if grid == "int8" else (BLOCK, 7)
    padded = torch.nn.functional.pad(rows, (0, -width % block)).view(len(rows), -1, block)
    step = (padded.abs().amax(2, keepdim=True) / most).clamp(min=torch.finfo(torch.float32).tiny)
    found: Tensor = ((padded / step).round() * step).flatten(1)[:, :width]
    return found.reshape(value.shape).to(value.dtype)
