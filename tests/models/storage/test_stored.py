"""Tensors read from a safetensors file, and the digest of weights in whatever precision."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erase.errors import BadWeights
from erase.models.storage.stored import DTYPES, StoredTensors, read_header
from erase.models.storage.weights import narrowest, weights_digest

NOISE = torch.randn(700, 1000, generator=torch.Generator().manual_seed(0))  # more than is converted at once


@pytest.mark.parametrize("dtype", sorted(DTYPES.values(), key=str))
def test_every_dtype_is_read_as_it_was_written(dtype: torch.dtype, tmp_path: Path) -> None:
    values = {
        "a": (9 * NOISE[:5, :7]).to(dtype),
        "empty": torch.empty(0, 3, dtype=dtype),
        "one": torch.ones((), dtype=dtype),
    }
    save_file(values, tmp_path / "file")
    with StoredTensors(tmp_path / "file") as file:
        for name, value in values.items():
            found = file.tensor(name)
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            assert torch.equal(found.view(-1).view(torch.uint8), value.view(-1).view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_and_other_dtypes_are_those_of_the_whole_tensor(dtype: torch.dtype, tmp_path: Path) -> None:
    value = NOISE.to(dtype)
    save_file({"first": NOISE[:3].clone(), "a": value}, tmp_path / "file")
    with StoredTensors(tmp_path / "file", read_header(tmp_path / "file")) as file:
        assert torch.equal(file.tensor("a", (600, 690)), value[600:690])
        assert torch.equal(file.tensor("a", dtype=torch.float32), value.float())
        assert torch.equal(file.tensor("a", (1, 650), dtype=torch.float64), value[1:650].double())


def test_a_file_that_has_become_shorter_is_told(tmp_path: Path) -> None:
    save_file({"a": NOISE}, tmp_path / "file")
    with StoredTensors(tmp_path / "file") as file:
        os.truncate(tmp_path / "file", 2**20)
        with pytest.raises(BadWeights, match="ends within a"):
            file.tensor("a")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_no_file_is_mapped_whose_pages_would_count_as_memory(tmp_path: Path) -> None:
    save_file({"a": NOISE}, tmp_path / "file")
    with StoredTensors(tmp_path / "file") as file:
        assert file.tensor("a").sum() != 0
        assert str(tmp_path / "file") not in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_have_the_digest_of_their_float32_copy(kind: torch.dtype) -> None:
    value = NOISE.to(kind)
    assert narrowest(value.float()).dtype == kind
    digest = weights_digest([("a", value)])
    assert weights_digest([("a", value.float())]) == digest
    assert weights_digest([("a", value.double())]) == digest
    other = value.clone()
    other[-1, -1] *= 1.5
    assert (
        len({digest, *(weights_digest([one]) for one in (("b", value), ("a", other), ("a", value.T), ("a", NOISE)))})
        == 5
    )


def test_values_keep_every_bit_in_the_narrowest_dtype_that_holds_them() -> None:
    values = [
        (torch.tensor([1.0, -0.0, 2.0**-130]), torch.bfloat16),
        (torch.tensor([1 + 2.0**-10, -0.0, 2.0**-24]), torch.float16),
        (torch.tensor([1 + 2.0**-10, 1e5]), torch.float32),
        (torch.cat([torch.ones(2**16), torch.tensor([1 + 2.0**-20])]), torch.float32),
    ]
    for value, kind in values:
        found = narrowest(value)
        assert found.dtype == kind
        assert torch.equal(found.float().view(torch.int32), value.view(torch.int32))
