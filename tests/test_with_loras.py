"""A user's LoRA below the edit is part of the base: as diffusers fuses it, recorded, and in what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erase.edit import Edit
from erase.errors import BadEdit, BadOption
from erase.foreign import parse_lora, with_loras
from erase.models import Model, open_model
from tests.recipes import command, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]
RANK = 2


@pytest.fixture
def mine(model: Model, tmp_path: Path) -> Path:
    """A LoRA on every cross-attention weight of the UNet, with kohya's keys."""
    generator, tensors = torch.Generator().manual_seed(5), {}
    for site in model.sites():
        rows, columns = model.weight(site.name).shape
        module = "lora_unet_" + site.key.removesuffix(".weight").replace(".", "_")
        tensors[f"{module}.lora_down.weight"] = torch.randn(RANK, columns, generator=generator)
        tensors[f"{module}.lora_up.weight"] = torch.randn(rows, RANK, generator=generator)
        tensors[f"{module}.alpha"] = torch.tensor(float(RANK))
    save_file(tensors, file := tmp_path / "mine é.safetensors")
    return file


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_its_weights_are_those_that_diffusers_fuses(model: Model, mine: Path, scale: float) -> None:
    pytest.importorskip("peft")
    pipe = model.pipeline()
    pipe.load_lora_weights(mine.parent, weight_name=mine.name)
    pipe.fuse_lora(lora_scale=scale)
    pipe.unload_lora_weights()
    ours, theirs = with_loras(model, [f"{mine}={scale}"]), dict(pipe.unet.named_parameters())
    for site in model.sites():
        assert torch.allclose(ours.weight(site.name), theirs[site.key], atol=1e-5)
        assert not torch.allclose(ours.weight(site.name), model.weight(site.name).float(), atol=1e-3)


def test_it_is_another_base_which_says_what_is_in_it_and_the_model_stays(model: Model, mine: Path) -> None:
    before, fused = model.fingerprint, with_loras(model, [str(mine)])
    assert fused.fingerprint != before == open_model(model.path).fingerprint
    assert (fused.loras[0]["file"], fused.loras[0]["scale"]) == (mine.name, 1.0)
    assert mine.stem in fused.title
    assert with_loras(model, []) is model


def test_an_edit_on_it_is_recorded_drawn_and_exported_with_it(
    capsys: Capture, tiny_model: Path, mine: Path, tmp_path: Path
) -> None:
    file, given = tmp_path / "edit.safetensors", ("-m", tiny_model, "--lora", mine)
    task = ("-t", "Ann Author", "-a", "painting", "--method", "uce")
    assert command(capsys, "edit", *given, *task, "-o", file).code == 0
    edit = Edit.load(file)
    assert edit.info.loras[0]["file"] == mine.name
    drawn = ("generate", "-e", file, "-p", "a cat", "--steps", 1)
    assert "another model" in refused(capsys, *drawn, "-m", tiny_model, "-o", tmp_path / "bare")
    assert command(capsys, *drawn, *given, "-o", tmp_path / "images").code == 0
    assert command(capsys, "export", *given, "-e", file, "-o", tmp_path / "out").code == 0
    exported, fused = open_model(tmp_path / "out"), with_loras(open_model(tiny_model), [str(mine)])
    for name, value in edit.changed(fused):
        assert torch.equal(exported.weight(name), value)


def test_a_run_takes_it_from_the_command_line_and_from_its_recipe(
    capsys: Capture, tiny_model: Path, mine: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, tiny_recipe(tmp_path, tiny_model) | {"score": []})
    assert command(capsys, "run", recipe, "--lora", mine, "-o", tmp_path / "run").code == 0
    assert Edit.load(tmp_path / "run/edit.safetensors").info.loras[0]["file"] == mine.name
    assert mine.name in (tmp_path / "run/recipe.yaml").read_text(encoding="utf-8")
    manifest = json.loads((tmp_path / "run/model/manifest.json").read_text(encoding="utf-8"))
    assert manifest["edit"]["loras"][0]["file"] == mine.name
    again = tmp_path / "run/recipe.yaml"
    assert command(capsys, "run", again, "-o", tmp_path / "again").code == 0
    one, other = (Edit.load(tmp_path / name / "edit.safetensors").content for name in ("run", "again"))
    assert one == other


def test_what_is_no_lora_is_refused_in_one_line(capsys: Capture, model: Model, mine: Path, tmp_path: Path) -> None:
    save_file({"unet.conv_in.bias": torch.zeros(4)}, tmp_path / "other.safetensors")
    for file in (tmp_path / "other.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(BadEdit, match="is no LoRA"):
            with_loras(model, [str(file)])
    with pytest.raises(BadOption, match="ends in no number"):
        with_loras(model, [f"{mine}=strong"])
    assert parse_lora("mine.safetensors=0.25") == (Path("mine.safetensors"), 0.25)
    assert "is no LoRA" in refused(
        capsys, "edit", "-m", model.path, "--lora", tmp_path / "other.safetensors", "-t", "noto", "-o", tmp_path / "e"
    )
