"""`erase export` of a model and an edit, without a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erase.edit import Edit
from erase.models import Model
from tests.recipes import command, refused
from tests.tiny_edits import tiny_edit


def test_a_model_and_an_edit_are_exported_at_a_strength(
    capsys: pytest.CaptureFixture[str], model: Model, tmp_path: Path
) -> None:
    edit = tiny_edit(model)
    edit.save(tmp_path / "edit.safetensors")
    flags = ["-m", model.path, "-e", tmp_path / "edit.safetensors", "--strength", "0.5"]
    said = command(capsys, "export", *flags, "-o", tmp_path / "out")
    assert said.out.strip() == f"folder  {tmp_path / 'out'}"
    manifest = json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))
    assert manifest["edit"]["content"] == edit.scaled(0.5).content
    said = command(capsys, "export", *flags, "--to", "patch", "-o", tmp_path / "half")
    assert said.out.strip() == f"patch  {tmp_path / 'half.safetensors'}"
    assert Edit.load(tmp_path / "half.safetensors").content == edit.scaled(0.5).content


def test_a_model_without_an_edit_or_beside_a_run_is_refused(capsys: pytest.CaptureFixture[str], model: Model) -> None:
    for flags in (["-m", model.path], ["-e", "edit.safetensors"], ["runs/mine", "-m", model.path, "-e", "x"]):
        assert "give a run's folder, or both --model and --edit" in refused(capsys, "export", *flags)


def test_an_unknown_export_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], model: Model, tmp_path: Path
) -> None:
    tiny_edit(model).save(tmp_path / "e.safetensors")
    line = refused(capsys, "export", "-m", model.path, "-e", tmp_path / "e.safetensors", "--to", "foldr")
    assert 'did you mean "folder"?' in line
