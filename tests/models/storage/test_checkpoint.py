"""Single-file checkpoints: the same model as the folder they were made of, read without a UNet and without settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from erase.edit import Edit
from erase.errors import BadModel, BadWeights
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.task import Target, Task
from tests.recipes import command
from tests.tiny_checkpoints import CHECKPOINTS, tiny_checkpoint

PROMPTS = ["a photo of a cat in the style of Van Gogh", "", "zygote, 4k!"]
TASK = Task((Target("Van Gogh", "style", anchor="Monet", prompts=("a cat by {}",)),), keeps=("a dog",))
Pair = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A family's folder and its single file, made once a session; do not change them."""
    root = tmp_path_factory.mktemp("checkpoints")
    return cache(lambda family: tiny_checkpoint(family, root / family))


@pytest.fixture(params=CHECKPOINTS)
def both(request: pytest.FixtureRequest, pair: Pair) -> tuple[Model, Model]:
    """The model of a folder, and that of the single file of the same weights."""
    folder, file = pair(request.param)
    return open_model(folder), open_model(file)


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_diffusers_itself_reads_the_tests_file_as_the_folders_model(pair: Pair, family: str) -> None:
    folder, file = pair(family)
    unet = UNet2DConditionModel.from_single_file(file, config=str(folder), subfolder="unet", local_files_only=True)
    expected = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(expected[name], value) for name, value in unet.state_dict().items())
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    for name in open_model(folder).text_components:
        text = create_diffusers_clip_model_from_ldm(
            kinds[name], load_file(file), subfolder=name, config=str(folder), local_files_only=True
        )
        stored = load_file(folder / name / "model.safetensors")
        stored = {key.removeprefix("text_model."): value for key, value in stored.items()}
        read = {key.removeprefix("text_model."): value for key, value in text.state_dict().items()}
        assert all(torch.equal(stored[key], read[key]) for key in stored)


def test_a_file_is_the_model_of_its_folder(both: tuple[Model, Model]) -> None:
    folder, file = both
    assert file.family == folder.family
    assert file.sites() == folder.sites()
    assert file.fingerprint == folder.fingerprint


def test_every_weight_of_unet_and_text_encoders_has_its_place(both: tuple[Model, Model]) -> None:
    folder, file = both
    for component in ("unet", *folder.text_components):
        expected = dict(folder.weights(component).tensors())
        assert {key.removeprefix("text_model.") for key in expected} == set(file.weights(component).places)
        for key, value in expected.items():
            found = file.weights(component).tensor(key.removeprefix("text_model."))
            assert torch.equal(found.reshape(value.shape), value)
            assert file.weights(component).shape(key.removeprefix("text_model.")) == found.shape


def test_prompts_are_encoded_as_the_folder_encodes_them(both: tuple[Model, Model]) -> None:
    folder, file = (model.encode(PROMPTS) for model in both)
    assert torch.equal(file.ids, folder.ids)
    assert torch.equal(file.states, folder.states)
    assert (file.pooled is None) == (folder.pooled is None)
    assert file.pooled is None or torch.equal(file.pooled, folder.pooled)


def test_an_edit_made_on_the_file_is_that_of_the_folder(both: tuple[Model, Model]) -> None:
    folder, file = (UCE()(model, TASK) for model in both)
    assert file.touches
    assert file.content == folder.content


def test_a_tensors_new_value_is_put_where_it_was_read(pair: Pair) -> None:
    _, path = pair("stable-diffusion-xl")
    model, stored = open_model(path), load_file(path)
    names = ("encoder.layers.1.self_attn.k_proj.weight", "text_projection.weight", "final_layer_norm.bias")
    for name in names:
        place = model.weights("text_encoder_2").places[name]
        value = model.weight(f"text_encoder_2.{name}")
        assert torch.equal(place.put(value, stored[place.key]), stored[place.key])
        assert not torch.equal(place.put(value + 1, stored[place.key]), stored[place.key])


def test_the_command_edits_a_file(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, file = pair("stable-diffusion")
    out = tmp_path / "edit.safetensors"
    said = command(capsys, "edit", "--model", file, "-t", "Van Gogh", "-a", "Monet", "-o", out)
    assert said.code == 0, said.errors
    assert Edit.load(out).info.base == open_model(folder).fingerprint


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("model.diffusion_model.joint_blocks.0.x", "a Stable Diffusion 3 checkpoint"),
        ("double_blocks.0.img_attn.qkv.weight", "a FLUX transformer"),
        ("conditioner.embedders.0.model.ln_final.weight", "the refiner of Stable Diffusion XL"),
        ("lora_unet_x.lora_down.weight", "a LoRA"),
        ("text_map.0.up", "an edit"),
        ("model.diffusion_model.out.2.bias", "a UNet without its text encoders"),
        ("something.else", "its keys are something.else"),
    ],
)
def test_another_kind_of_file_is_refused_by_what_it_is(tmp_path: Path, key: str, what: str) -> None:
    save_file({key: torch.zeros(1)}, tmp_path / "file.safetensors")
    with pytest.raises(BadModel, match=what):
        open_model(tmp_path / "file.safetensors")


def test_a_truncated_file_is_told(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(pair("stable-diffusion")[1].read_bytes()[:-100])
    with pytest.raises(BadWeights, match="truncated"):
        open_model(tmp_path / "cut.safetensors")


def test_another_vocabulary_is_refused_with_the_way_out(pair: Pair, tmp_path: Path) -> None:
    tensors = load_file(pair("stable-diffusion")[1])
    key = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    save_file(tensors | {key: tensors[key][:-1].clone()}, tmp_path / "other.safetensors")
    with pytest.raises(BadModel, match="knows 49407 tokens"):
        open_model(tmp_path / "other.safetensors").encode(["a cat"])


def test_a_text_encoder_without_one_of_its_tensors_is_refused(pair: Pair, tmp_path: Path) -> None:
    tensors = load_file(pair("stable-diffusion")[1])
    del tensors["cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.bias"]
    save_file(tensors, tmp_path / "holes.safetensors")
    with pytest.raises(BadWeights, match=r"lacks the tensor .*encoder\.layers\.1\.mlp\.fc2\.bias"):
        open_model(tmp_path / "holes.safetensors").encode(["a cat"])


def test_images_of_a_file_of_other_shapes_are_refused_with_the_way_out(pair: Pair) -> None:
    with pytest.raises(BadModel, match=r"unet\.conv_in\.weight as \[320, 4, 3, 3\].*save_pretrained.*FILE@FOLDER"):
        open_model(pair("stable-diffusion")[1]).pipeline()
