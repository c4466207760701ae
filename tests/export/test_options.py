"""An export's options are checked like a method's, and reach it from the command line and from a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from erase.edit import Edit
from erase.errors import BadOption
from erase.export.parts.recipe import content_in
from erase.models import Model
from erase.run.options import export_with
from tests.export.test_lora import CONVOLUTION, dense, made
from tests.recipes import command, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def edit_file(model: Model, tmp_path: Path) -> Path:
    Edit(made(model).info, (), dense(model, CONVOLUTION)).save(tmp_path / "edit.safetensors")
    return tmp_path / "edit.safetensors"


def test_an_option_reaches_the_export(capsys: Capture, tiny_model: Path, edit_file: Path, tmp_path: Path) -> None:
    given = ("export", "-m", tiny_model, "-e", edit_file, "--to", "lora", "-o", tmp_path / "lora")
    assert command(capsys, *given, "--option", "rank=2").code == 0
    assert {len(value) for key, value in load_file(tmp_path / "lora.safetensors").items() if "lora_down" in key} == {2}


def test_a_wrong_option_is_one_line(capsys: Capture, tiny_model: Path, edit_file: Path, tmp_path: Path) -> None:
    given = ("export", "-m", tiny_model, "-e", edit_file, "--to", "lora", "-o", tmp_path / "lora", "--option")
    assert 'did you mean "rank"' in refused(capsys, *given, "rnk=2")
    assert "option rank of lora is 'much'" in refused(capsys, *given, "rank=much")
    assert "option dtype of lora" in refused(capsys, *given, "dtype=int8")
    with pytest.raises(BadOption, match="unknown key"):
        export_with("patch", {"rank": 1})


def test_a_run_exports_a_lora_once_and_again_only_for_another_edit(
    capsys: Capture, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path, tiny_model) | {"score": [], "export": ["patch", "lora"]}
    file, folder = write_recipe(tmp_path, recipe), tmp_path / "run"
    assert command(capsys, "run", file, "-o", folder).code == 0
    edit = Edit.load(folder / "edit.safetensors")
    assert content_in(folder / "lora.safetensors") == content_in(folder / "edit.safetensors") == edit.content
    assert "nothing was left to do" in command(capsys, "run", file, "-o", folder).out
    (folder / "edit.safetensors").unlink()
    edit.scaled(0.5).save(folder / "edit.safetensors")
    (folder / "grid.png").unlink()  # the first step that is missing, and all after it
    assert command(capsys, "run", file, "-o", folder).code == 0
    assert content_in(folder / "lora.safetensors") == edit.scaled(0.5).content


def test_a_pipelines_options_reach_its_exports_and_wrong_ones_are_told_before_any_work(
    capsys: Capture, tiny_model: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path, tiny_model) | {"score": [], "export": ["patch", "folder"]}
    file = write_recipe(tmp_path, recipe | {"export_options": {"folder": {"dtype": "float16"}}})
    assert command(capsys, "run", file, "-o", tmp_path / "run").code == 0
    tensors = load_file(tmp_path / "run/model/unet/diffusion_pytorch_model.safetensors")
    assert {str(value.dtype) for value in tensors.values()} == {"torch.float16"}
    for options, said in (({"folder": {"dtype": "int8"}}, "option dtype of folder"), ({"lora": {}}, "not exported")):
        other = write_recipe(tmp_path, recipe | {"export_options": options})
        assert said in refused(capsys, "run", other, "-o", tmp_path / "other")
        assert not (tmp_path / "other").exists()
