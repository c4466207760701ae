"""Undoing an exported folder gives back its source, bit for bit, or nothing at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from erase.edit import Edit
from erase.errors import BadEdit, BadModel, ModelMismatch, RunConflict
from erase.export.folder import folder
from erase.export.parts.undo import undo
from erase.models import open_model
from tests.export.test_lora import TEXT, dense, made
from tests.recipes import command, contents, refused
from tests.tiny import tiny_stable_diffusion

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def source(tiny_copy: Path) -> Path:
    """A float16 model with a card of its own and no judge."""
    shutil.rmtree(tiny_copy / "judge")
    (tiny_copy / "README.md").write_text("---\nlicense: openrail\n---\nMine.\n", encoding="utf-8")
    for part in ("unet", "text_encoder"):
        (file,) = (tiny_copy / part).glob("*.safetensors")
        save_file({key: value.half() for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return tiny_copy


def exported(source: Path, target: Path, *, reversal: bool = False) -> tuple[Edit, Path]:
    model = open_model(source)
    edit = made(model, deltas=dense(model, TEXT))
    return edit, folder(model, edit, target, reversal=reversal)


def test_the_source_comes_back_from_the_base(capsys: Capture, source: Path, tmp_path: Path) -> None:
    _, edited = exported(source, tmp_path / "edited")
    assert contents(edited) != contents(source)
    assert command(capsys, "undo", f"{edited}/", "--base", source).code == 0
    assert contents(tmp_path / "edited-restored") == contents(source)


def test_the_source_comes_back_from_the_reversal_file_alone(capsys: Capture, source: Path, tmp_path: Path) -> None:
    before = contents(source)
    _, edited = exported(source, tmp_path / "edited", reversal=True)
    assert not list(edited.rglob("*reversal*"))  # it would undo the erasure for whoever gets the folder
    shutil.rmtree(source)
    assert command(capsys, "undo", edited, "-o", tmp_path / "back").code == 0
    assert contents(tmp_path / "back") == before


def test_without_base_and_reversal_it_says_what_to_give(capsys: Capture, source: Path, tmp_path: Path) -> None:
    _, edited = exported(source, tmp_path / "edited")
    line = refused(capsys, "undo", edited)
    assert "--base" in line
    assert "reversal=true" in line
    assert not (tmp_path / "edited-restored").exists()


def test_another_base_another_reversal_and_a_damaged_one_are_refused(source: Path, tmp_path: Path) -> None:
    edit, edited = exported(source, tmp_path / "edited")
    model = open_model(source)
    folder(model, edit.scaled(0.5), tmp_path / "half", reversal=True)
    with pytest.raises(ModelMismatch, match="another edit"):
        undo(edited, tmp_path / "back", reversal=tmp_path / "half.reversal.safetensors")
    with pytest.raises(ModelMismatch, match="the model that was edited"):
        undo(edited, tmp_path / "back", base=tiny_stable_diffusion(tmp_path / "other", seed=1))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "half.reversal.safetensors").read_bytes()[:999])
    with pytest.raises(BadEdit, match="damaged"):
        undo(edited, tmp_path / "back", reversal=tmp_path / "cut.safetensors")
    assert not (tmp_path / "back").exists()


def test_a_folder_that_was_changed_since_is_not_restored_into_something_else(source: Path, tmp_path: Path) -> None:
    _, edited = exported(source, tmp_path / "edited")
    (edited / "vae/config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadModel, match="another hash"):
        undo(edited, tmp_path / "back", base=source)


def test_nothing_is_overwritten(source: Path, tmp_path: Path) -> None:
    _, edited = exported(source, tmp_path / "edited")
    with pytest.raises(RunConflict):
        undo(edited, source, base=source)
