"""Tensors are rewritten at their own places, in their own dtype and shape, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.errors import BadWeights
from erase.export.parts.writing import rewrite

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_is_rewritten_and_its_neighbours_keep_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    file, generator = tmp_path / "a.safetensors", torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(3, 5, generator=generator).to(dtype) for name in ("a", "b", "c")}
    save_file(tensors, file, metadata={"title": "mine"})
    size = file.stat().st_size
    new = torch.randn(5, 3, generator=generator).to(dtype).T  # not contiguous
    rewrite(file, {"b": new})
    assert file.stat().st_size == size
    read = load_file(file)
    assert torch.equal(read["b"], new)
    assert all(torch.equal(read[name], tensors[name]) for name in ("a", "c"))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("z", torch.zeros(2, 2)), ("a", torch.zeros(4)), ("a", torch.zeros(2, 2, dtype=torch.float16))],
)
def test_another_name_shape_or_dtype_is_refused(tmp_path: Path, name: str, tensor: torch.Tensor) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2, 2)}, file)
    data = file.read_bytes()
    with pytest.raises(BadWeights, match=f"does not hold {name} as"):
        rewrite(file, {name: tensor})
    assert file.read_bytes() == data
