"""A patch is the edit's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.edit import Edit
from erase.errors import BadEdit, ModelMismatch, RunConflict
from erase.export.patch import patch
from erase.models import Model, open_model
from tests.tiny import tiny_stable_diffusion
from tests.tiny_edits import tiny_edit


def test_a_patch_holds_the_edit_and_writing_it_twice_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    edit = tiny_edit(model, deltas=("unet.conv_out.bias",))
    written = patch(model, edit, tmp_path / "noto")
    data = written.read_bytes()
    assert written == tmp_path / "noto.safetensors"
    assert Edit.load(written).content == edit.content
    assert Edit.load(written).info == edit.info
    assert patch(model, edit, written).read_bytes() == data


def test_another_edit_is_not_overwritten(model: Model, tmp_path: Path) -> None:
    written = patch(model, tiny_edit(model), tmp_path / "noto.safetensors")
    data = written.read_bytes()
    with pytest.raises(RunConflict, match="holds another edit"):
        patch(model, tiny_edit(model, seed=1), written)
    assert written.read_bytes() == data


def test_a_file_of_something_else_is_not_overwritten(model: Model, tmp_path: Path) -> None:
    (tmp_path / "noto.safetensors").write_text("precious", encoding="utf-8")
    with pytest.raises(BadEdit):
        patch(model, tiny_edit(model), tmp_path / "noto")
    assert (tmp_path / "noto.safetensors").read_text(encoding="utf-8") == "precious"


def test_an_edit_of_another_model_is_refused(model: Model, tmp_path: Path) -> None:
    other = open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))
    with pytest.raises(ModelMismatch):
        patch(other, tiny_edit(model), tmp_path / "noto")
    assert not (tmp_path / "noto.safetensors").exists()
