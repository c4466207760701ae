"""Undoing an exported single file gives back its source: its bytes if that was one itself, else its values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from erase.edit import Edit
from erase.errors import BadEdit, BadModel, ModelMismatch, RunConflict
from erase.export.checkpoint import checkpoint
from erase.export.parts.undo import undo_file
from erase.models import Model, open_model
from tests.export.test_lora import TEXT, dense, made
from tests.recipes import command, refused
from tests.tiny import tiny_stable_diffusion
from tests.tiny_checkpoints import CHECKPOINTS, tiny_checkpoint

Capture = pytest.CaptureFixture[str]


def edited(model: Model) -> Edit:
    return made(model, deltas=dense(model, TEXT, "unet.conv_in.weight"))


@pytest.fixture
def source(model: Model, tmp_path: Path) -> Path:
    """A single file in another order than ours, with a tensor and metadata that nobody here knows."""
    tensors = load_file(checkpoint(model, edited(model).scaled(0.0), tmp_path / "unedited"))
    (tmp_path / "unedited.safetensors").unlink()
    save_file(tensors | {"zz.decay": torch.tensor(0.9, dtype=torch.float64)}, tmp_path / "base.safetensors", {"a": "b"})
    return tmp_path / "base.safetensors"


def exported(source: Path, *, reversal: bool = False) -> Path:
    model = open_model(source)
    return checkpoint(model, edited(model), source.with_name("edited"), reversal=reversal)


def test_a_single_file_comes_back_byte_for_byte_from_its_base(capsys: Capture, source: Path) -> None:
    file = exported(source)
    assert file.read_bytes() != source.read_bytes()
    said = command(capsys, "undo", file, "--base", source)
    assert said.code == 0, said.errors
    assert source.with_name("edited-restored.safetensors").read_bytes() == source.read_bytes()


def test_a_single_file_comes_back_byte_for_byte_from_the_reversal_file_alone(capsys: Capture, source: Path) -> None:
    file, before = exported(source, reversal=True), source.read_bytes()
    source.unlink()
    assert command(capsys, "undo", file, "-o", file.with_name("back.safetensors")).code == 0
    assert file.with_name("back.safetensors").read_bytes() == before


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_every_family_comes_back(family: str, tmp_path: Path) -> None:
    _, source = tiny_checkpoint(family, tmp_path)
    model = open_model(source)
    names = [f"{part}.encoder.layers.0.self_attn.k_proj.weight" for part in model.text_components]
    file = checkpoint(model, Edit(made(model).info, (), dense(model, *names)), tmp_path / "edited")
    assert load_file(file).keys() == load_file(source).keys()
    assert undo_file(file, tmp_path / "back.safetensors", base=source).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("from_base", [True, False])
def test_a_folders_single_file_comes_back_with_the_folders_values(
    from_base: bool, model: Model, tmp_path: Path
) -> None:
    file = checkpoint(model, edited(model), tmp_path / "edited", reversal=True)
    back = undo_file(file, tmp_path / "back.safetensors", base=model.path if from_base else None)
    nothing = load_file(checkpoint(model, edited(model).scaled(0.0), tmp_path / "nothing"))
    found = load_file(back)
    assert found.keys() == nothing.keys()
    assert all(torch.equal(found[key], nothing[key]) for key in nothing)
    with safe_open(back, framework="pt") as opened:
        assert not any("erase.recipe" in key or "without Ann" in value for key, value in opened.metadata().items())


def test_another_base_another_reversal_and_what_is_no_export_are_refused(
    capsys: Capture, source: Path, tmp_path: Path
) -> None:
    file, back = exported(source, reversal=True), tmp_path / "back.safetensors"
    other = tiny_stable_diffusion(tmp_path / "other", seed=1)
    with pytest.raises(ModelMismatch, match="another base model"):
        undo_file(file, back, base=other)
    model = open_model(source)
    half = checkpoint(model, edited(model).scaled(0.5), tmp_path / "half", reversal=True)
    with pytest.raises(ModelMismatch, match="another edit"):
        undo_file(file, back, reversal=half.with_name("half.reversal.safetensors"))
    assert "says nothing of an edit" in refused(capsys, "undo", source, "--base", source)
    with pytest.raises(BadEdit, match="no reversal file"):
        undo_file(file, back, reversal=source)
    with pytest.raises(RunConflict):
        undo_file(file, source, base=source)
    assert not back.exists()


def test_a_file_that_was_changed_since_is_not_restored_into_something_else(source: Path, tmp_path: Path) -> None:
    file = exported(source, reversal=True)
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file(tensors | {"zz.decay": torch.tensor(0.5, dtype=torch.float64)}, file, metadata)
    for more in ({"base": source}, {}):
        with pytest.raises(BadModel, match="bit for bit"):
            undo_file(file, tmp_path / "back.safetensors", **more)
    del tensors["zz.decay"]
    save_file(tensors, file, metadata)
    with pytest.raises(BadModel, match="not the tensors of its source"):
        undo_file(file, tmp_path / "back.safetensors", base=source)
    assert not (tmp_path / "back.safetensors").exists()
