"""A folder whose files are not what its settings ask for is told when it is opened, with the tensor's name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.errors import BadModel
from erase.models import open_model
from erase.models.storage.published import settings_of, shapes_of
from tests.families import Opener
from tests.recipes import refused
from tests.tiny_families import FAMILIES

Capture = pytest.CaptureFixture[str]
MIDDLE = "mid_block.resnets.0.conv1.weight"


def rewritten(file: Path, *, without: str = "", **more: Tensor) -> None:
    tensors = {key: value for key, value in load_file(file).items() if key != without}
    save_file(tensors | more, file, {"format": "pt"})


def test_a_unet_without_one_tensor_is_told_by_every_command_in_one_line(tiny_copy: Path, capsys: Capture) -> None:
    rewritten(tiny_copy / "unet/diffusion_pytorch_model.safetensors", without=MIDDLE)
    for arguments in (
        ("edit", "-m", tiny_copy, "-t", "noto", "-a", "blob", "-o", tiny_copy / "e.safetensors"),
        ("generate", "-m", tiny_copy, "-p", "a cat", "-o", tiny_copy / "images"),
    ):
        line = refused(capsys, *arguments)
        assert f"lacks the tensor {MIDDLE}" in line
        assert "again" in line


def test_a_layer_that_the_settings_ask_for_and_the_file_lacks_is_named(tiny_copy: Path) -> None:
    config = tiny_copy / "unet/config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"time_cond_proj_dim": 8}), encoding="utf-8"
    )
    with pytest.raises(BadModel, match=r"lacks the tensor time_embedding\.cond_proj\.weight"):
        open_model(tiny_copy)


def test_a_tensor_of_another_shape_is_told_with_both_shapes(tiny_copy: Path) -> None:
    rewritten(tiny_copy / "vae/diffusion_pytorch_model.safetensors", **{"decoder.conv_in.bias": torch.zeros(5)})
    with pytest.raises(BadModel, match=r"decoder\.conv_in\.bias as \[5\], and its config\.json asks for \[16\]"):
        open_model(tiny_copy)


@pytest.mark.parametrize("is_in_settings", [True, False])
def test_an_inpainting_unet_under_the_plain_class_is_told_with_its_channels(
    is_in_settings: bool, tiny_copy: Path
) -> None:
    rewritten(tiny_copy / "unet/diffusion_pytorch_model.safetensors", **{"conv_in.weight": torch.zeros(16, 9, 3, 3)})
    if is_in_settings:
        config = tiny_copy / "unet/config.json"
        config.write_text(
            json.dumps(json.loads(config.read_text(encoding="utf-8")) | {"in_channels": 9}), encoding="utf-8"
        )
    with pytest.raises(BadModel, match="reads 9 channels, as an inpainting model does, and a StableDiffusionPipeline"):
        open_model(tiny_copy)


def test_a_text_encoder_without_one_tensor_is_told(tiny_copy: Path) -> None:
    file = tiny_copy / "text_encoder/model.safetensors"
    rewritten(file, without=next(key for key in load_file(file) if key.endswith("layers.1.mlp.fc1.weight")))
    with pytest.raises(BadModel, match=r"lacks the tensor encoder\.layers\.1\.mlp\.fc1\.weight"):
        open_model(tiny_copy)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_of_every_family_is_looked_at(family: str, family_model: Opener, tmp_path: Path) -> None:
    model = family_model(family)  # which was opened, so that nothing is missed in a whole one
    for part in (model.backbone, *model.text_components, "vae"):
        copy = Path(shutil.copytree(model.path, tmp_path / part))
        file = next((copy / part).glob("*.safetensors"))
        rewritten(file, without=max(key for key in load_file(file) if key.endswith("bias") or "layer_norm" in key))
        with pytest.raises(BadModel, match=f"{part} lacks the tensor"):
            open_model(copy)


def test_an_older_autoencoder_lacks_nothing(tiny_copy: Path) -> None:
    file = tiny_copy / "vae/diffusion_pytorch_model.safetensors"
    older = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    named = {}
    for key, value in load_file(file).items():
        new = next((key.replace(ours, theirs) for ours, theirs in older.items() if ours in key), key)
        named[new] = value
    assert named.keys() != load_file(file).keys()
    save_file(named, file, {"format": "pt"})
    assert open_model(tiny_copy).sites()


def test_a_single_file_that_is_as_published_but_for_a_tensor_is_told(tmp_path: Path) -> None:
    from erase.models.storage.skeleton import check_published
    from erase.models.storage.weights import Place

    expected = shapes_of(settings_of("stable-diffusion", "unet"))
    found = {key: Place(tmp_path, key, shape) for key, shape in expected.items()}
    check_published("a.safetensors", expected, found)
    whole = dict(found)
    found.pop(MIDDLE)
    with pytest.raises(BadModel, match=f"a.safetensors lacks the UNet's tensor {MIDDLE}"):
        check_published("a.safetensors", expected, found)
    found["conv_in.weight"] = Place(tmp_path, "conv_in.weight", (320, 9, 3, 3))  # another model, whose settings we lack
    check_published("a.safetensors", expected, found)
    assert len(whole) == len(found) + 1
