"""What a file is that is no whole checkpoint: opening it and looking at it say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from erase.errors import BadModel, PickleRefused
from erase.export.parts.inspection import look_at
from erase.models import open_model

UNET = "model.diffusion_model.input_blocks.0.0.weight"
FIRST, SECOND = "conditioner.embedders.0.transformer.text_model.x", "conditioner.embedders.1.model.ln_final.weight"
FILES = {
    "without its second text encoder": (UNET, FIRST),
    "without its first text encoder": (UNET, SECOND),
    "without its UNet": (FIRST, SECOND),
    "the refiner of Stable Diffusion XL": (UNET, "conditioner.embedders.0.model.ln_final.weight"),
    "Stable Diffusion XL without its text encoders": (UNET, "model.diffusion_model.label_emb.0.0.weight"),
    "a UNet without its text encoders": (UNET,),
    "a bare UNet, as ComfyUI keeps them apart": ("input_blocks.0.0.weight", "out.0.weight"),
    "a bare UNet of Stable Diffusion XL": ("input_blocks.0.0.weight", "label_emb.0.0.weight"),
    "a LoRA with kohya's keys": ("lora_unet_mid_block.lora_down.weight",),
    "a LoRA with diffusers' keys": ("unet.mid_block.lora_A.weight",),
    "a FLUX transformer": ("double_blocks.0.img_attn.qkv.weight",),
    "a UNet of a diffusers folder": ("mid_block.attentions.0.proj_in.weight",),
    "a UNet's tensors by diffusers' names": ("unet.mid_block.attentions.0.proj_in.weight",),
    "an edit": ("delta.unet.conv_in.weight",),
}


@pytest.mark.parametrize("what", FILES)
def test_opening_a_file_and_looking_at_it_say_the_same_of_what_it_is(what: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({key: torch.zeros(1) for key in FILES[what]}, file)
    with pytest.raises(BadModel) as raised:
        open_model(file)
    assert what in str(raised.value)
    assert look_at(file).what in str(raised.value)


def test_a_pickle_with_the_name_of_safetensors_is_called_a_pickle_by_both(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    torch.save({"weight": torch.zeros(1)}, file)
    for read in (open_model, look_at):
        with pytest.raises(PickleRefused, match="is a pickle, which can run code"):
            read(file)
