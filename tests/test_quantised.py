"""Bases in eight bits: edits of text states are made and ship beside them, nothing is written into the grid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.edit import Edit
from erase.foreign import edit_in
from erase.models import fingerprint_of, open_model
from tests.recipes import command, contents, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]
FP8 = torch.float8_e4m3fn


@pytest.fixture(params=["cast", "scaled"])
def coarse(request: pytest.FixtureRequest, tiny_copy: Path) -> Path:
    """The tiny model with the matrices of its UNet in fp8, as they are or divided by a scale that is beside them."""
    file = tiny_copy / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for key, value in list(tensors.items()):
        if key.endswith(".weight") and value.dim() == 2:
            scale = value.abs().max() / 448 if request.param == "scaled" else torch.ones(())
            tensors[key] = (value / scale).to(FP8)
            if request.param == "scaled":
                tensors[key.removesuffix("weight") + "scale_weight"] = scale
    save_file(tensors, file, {"format": "pt"})
    return tiny_copy


def made(coarse: Path, tmp_path: Path, capsys: Capture) -> Path:
    out = tmp_path / "edit.safetensors"
    said = command(capsys, "edit", "-m", coarse, "--method", "uce", "-t", "noto", "-a", "blob", "-o", out)
    assert said.code == 0, said.errors
    return out


def test_an_edit_of_text_states_is_made_and_its_lora_is_of_the_dequantised_weights(
    coarse: Path, tiny_model: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = made(coarse, tmp_path, capsys)
    said = command(
        capsys, "export", "-m", coarse, "-e", file, "--to", "lora", "-o", tmp_path / "lora", "--option", "loss=0"
    )
    assert said.code == 0, said.errors
    model, edit = open_model(coarse), Edit.load(file)
    lora = edit_in(tmp_path / "lora.safetensors", model)
    assert set(lora.touches) == set(edit.touches)
    assert lora.touches
    for one in lora.low_rank:
        weight = model.weight(one.site).float()
        original = open_model(tiny_model).weight(one.site)
        assert float((weight - original).norm() / original.norm()) < 0.05  # dequantised, and not the grid's numbers
        delta = sum(text_map.delta(weight) for text_map in edit.text_maps if one.site in text_map.sites)
        torch.testing.assert_close(one.delta(weight), delta, rtol=1e-3, atol=1e-5)


def test_a_base_in_eight_bits_is_drawn_with_its_edit(coarse: Path, tmp_path: Path, capsys: Capture) -> None:
    model = open_model(coarse)
    pipe = model.pipeline()
    site = model.sites()[0]
    assert torch.equal(pipe.unet.get_parameter(site.key).data, model.weight(site.name).float())
    assert fingerprint_of(pipe) == model.fingerprint
    file = made(coarse, tmp_path, capsys)
    said = command(capsys, "generate", "-m", coarse, "-e", file, "-p", "a cat", "--steps", 1, "-o", tmp_path / "out")
    assert said.code == 0, said.errors


def test_what_writes_into_the_grid_is_refused_before_any_work(coarse: Path, tmp_path: Path, capsys: Capture) -> None:
    file = made(coarse, tmp_path, capsys)
    for form in ("folder", "checkpoint"):
        line = refused(capsys, "export", "-m", coarse, "-e", file, "--to", form, "-o", tmp_path / "out")
        assert "coarser than an edit" in line
        assert "export a patch or a LoRA" in line
    line = refused(capsys, "edit", "-m", coarse, "--method", "esd", "-t", "noto", "-o", tmp_path / "esd.safetensors")
    assert "training by esd would lose it" in line
    recipe = write_recipe(tmp_path, tiny_recipe(tmp_path, coarse) | {"export": ["folder"]})
    assert "coarser than an edit" in refused(capsys, "run", recipe, "-o", tmp_path / "run")
    assert contents(tmp_path / "run") == {}


@pytest.mark.parametrize("coarse", ["cast"], indirect=True)
def test_an_attack_along_a_gradient_is_refused_before_any_image(coarse: Path, tmp_path: Path, capsys: Capture) -> None:
    recipe = tiny_recipe(tmp_path, coarse) | {"attack": "unlearndiffatk", "export": []}
    said = refused(capsys, "run", write_recipe(tmp_path, recipe), "--out", tmp_path / "run")
    assert "unlearndiffatk goes along a gradient, which a network in" in said
    assert not (tmp_path / "run").exists()
