"""A comparison names the tensors that differ, by how much, and the rank of the change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.errors import BadModel
from erase.export.folder import folder
from erase.export.parts.difference import compare, rank_of
from erase.models import Model
from tests.export.test_lora import made
from tests.recipes import command, refused

Capture = pytest.CaptureFixture[str]


def test_exactly_the_edits_tensors_differ_each_by_its_rank(model: Model, tmp_path: Path) -> None:
    edit = made(model, rank=3)
    out = folder(model, edit, tmp_path / "out")
    found = compare(model.path, out)
    assert [one.name for one in found.differences] == list(edit.touches)
    for one in found.differences:
        before, after = model.weight(one.name).double(), edit.changed_tensor(one.name, model.weight(one.name)).double()
        assert one.relative == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-9)
        assert one.largest == pytest.approx(float((after - before).abs().max()), rel=1e-9)
        assert one.rank == 3
    tensors = sum(len(load_file(file)) for file in out.rglob("*.safetensors"))
    assert found.same == tensors - len(edit.touches)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rounding_adds_no_rank(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((64, 48), generator=generator).to(dtype)
    up, down = torch.randn((64, 5), generator=generator), torch.randn((5, 48), generator=generator)
    after = (weight.double() + (up @ down).double()).to(dtype)
    assert rank_of(after.double() - weight.double(), after) == 5


def test_the_same_model_has_no_difference_whichever_way_its_text_encoder_is_stored(
    capsys: Capture, model: Model, tiny_copy: Path
) -> None:
    file = tiny_copy / "text_encoder" / "model.safetensors"
    flat = {key.removeprefix("text_model."): value for key, value in load_file(file).items()}
    save_file({f"text_model.{key}": value for key, value in flat.items()}, file)
    assert compare(model.path, tiny_copy).differences == ()
    assert command(capsys, "diff", model.path, tiny_copy).out.startswith("0 tensors differ")


def test_what_is_on_one_side_only_or_of_another_kind_is_said(capsys: Capture, tmp_path: Path) -> None:
    one = {"a": torch.zeros(2), "b": torch.ones(2), "c": torch.ones(3), "d": torch.ones(2, 2)}
    other = {"b": torch.ones(2).half(), "c": torch.ones(2), "d": torch.ones(2, 2), "e": torch.ones(1)}
    save_file(one, tmp_path / "one.safetensors")
    save_file(other, tmp_path / "other.safetensors")
    said = command(capsys, "diff", tmp_path / "one.safetensors", tmp_path / "other.safetensors", "--no-rank").out
    assert said.splitlines() == [
        "a  only in the first",
        "b  relative 0  largest 0  (float32 and float16)",
        "c  [3] and [2]",
        "e  only in the second",
        "4 tensors differ, 1 are the same bit for bit",
    ]


def test_two_things_with_nothing_in_common_are_refused(capsys: Capture, model: Model, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({name: torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(BadModel, match="no tensor in common"):
        compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    with pytest.raises(BadModel, match="no checkpoint that is known here"):
        compare(model.path, tmp_path / "a.safetensors")
    assert "model_index.json" in refused(capsys, "diff", tmp_path, model.path)
