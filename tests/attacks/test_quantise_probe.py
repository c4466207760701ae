"""Quantising: what each grid makes of a matrix, and of an edit."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from erase.attacks.quantise_probe import Grid, QuantiseProbe, rounded
from erase.errors import BadOption
from tests.attacks.setting import attacked


def matrix() -> torch.Tensor:
    return torch.randn(6, 70, generator=torch.Generator().manual_seed(2))


def test_int8_has_a_step_for_each_row() -> None:
    value = matrix().double().numpy()
    step = np.abs(value).max(1, keepdims=True) / 127
    assert np.allclose(rounded(matrix(), "int8").numpy(), np.rint(value / step) * step, atol=1e-6)


def test_int4_has_fifteen_values_in_each_block_of_a_row() -> None:
    found, value = rounded(matrix(), "int4"), matrix()
    for row in range(6):
        for start in (0, 32, 64):
            part, own = found[row, start : start + 32], value[row, start : start + 32]
            step = own.abs().max() / 7
            assert torch.allclose(part / step, (part / step).round(), atol=1e-4)
            assert (part - own).abs().max() <= step / 2 + 1e-6


def test_fp8_keeps_three_bits_behind_the_point() -> None:
    assert rounded(torch.tensor([[1.0, 1.0625, 1.124, 1.19]]), "fp8").tolist() == [[1.0, 1.0, 1.125, 1.25]]


@pytest.mark.parametrize("grid", get_args(Grid))
def test_kernels_keep_shape_and_dtype(grid: str) -> None:
    value = torch.randn(4, 3, 3, 3).bfloat16()
    assert rounded(value, grid).shape == value.shape
    assert rounded(value, grid).dtype == torch.bfloat16


def test_each_grid_is_tried_until_the_target_is_seen(tmp_path: Path) -> None:
    result = attacked(QuantiseProbe(), tmp_path, budget=100)
    assert {one.images for one in result.attempts if not one.searched} <= {3}
    assert result.to_json()["against"] == "seed_search"


def test_an_unknown_grid_is_refused() -> None:
    with pytest.raises(BadOption, match="expected one of fp8, int8, int4"):
        QuantiseProbe(grids=("int3",))
