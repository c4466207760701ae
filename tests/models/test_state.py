"""An edit is refused where it would miss its mark: fused layers, a loaded LoRA, quantised weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from erase.edit import Edit
from erase.errors import BadModel, BadWeights, ModelMismatch
from erase.export.folder import folder
from erase.export.lora import lora
from erase.models import Model
from tests.export.test_lora import made


def test_fused_projections_are_refused_until_they_are_taken_apart(model: Model) -> None:
    pipe = model.pipeline()
    pipe.fuse_qkv_projections()
    with pytest.raises(BadModel, match="unfuse_qkv_projections"):
        made(model).apply(pipe, force=True)
    pipe.unfuse_qkv_projections()
    made(model).apply(pipe)


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="diffusers loads a LoRA through peft")
def test_a_loaded_lora_is_refused_and_a_fused_one_is_another_model(model: Model, tmp_path: Path) -> None:
    pipe = model.pipeline()
    pipe.load_lora_weights(lora(model, made(model), tmp_path / "lora"))
    with pytest.raises(BadModel, match="unload_lora_weights"):
        made(model).apply(pipe, force=True)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    with pytest.raises(ModelMismatch, match="an edited one"):
        made(model).apply(pipe)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_quantised_weight_is_refused(dtype: torch.dtype, model: Model) -> None:
    edit, name = made(model), model.sites()[0].name
    with pytest.raises(BadWeights, match="quantised"):
        edit.changed_tensor(name, model.weight(name).to(dtype))


def test_a_quantised_pipeline_is_refused_whole(model: Model) -> None:
    pipe = model.pipeline()
    layer = pipe.unet.conv_in
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(BadWeights, match=r"conv_in.*quantised"):
        made(model).apply(pipe, force=True)


def test_a_quantised_folder_is_refused_and_nothing_is_left(tiny_copy: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from erase.models import open_model

    file = tiny_copy / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({k: v.to(torch.int8) if "attn2.to_k.w" in k else v for k, v in tensors.items()}, file)
    model = open_model(tiny_copy)
    edit: Edit = made(model)
    with pytest.raises(BadWeights, match="quantised"):
        folder(model, edit, tmp_path / "out")
    assert not (tmp_path / "out").exists()
