"""A LoRA is the edit itself: in numbers, in diffusers, and under the keys that other programs look for."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from erase.edit import Edit, EditInfo, TextMap
from erase.errors import BadEdit, BadOption, ModelMismatch, RunConflict
from erase.export.folder import folder
from erase.export.lora import lora, module_key
from erase.models import Model, open_model
from tests.tiny import tiny_stable_diffusion

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="diffusers loads a LoRA through peft, which is not installed"
)
CONVOLUTION = "unet.down_blocks.0.resnets.0.conv1.weight"
TEXT = "text_encoder.encoder.layers.0.self_attn.q_proj.weight"


def made(model: Model, *, rank: int = 3, deltas: Mapping[str, Tensor] | None = None, seed: int = 0) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    width = model.sites()[0].columns
    up, down = (torch.randn(shape, generator=generator) for shape in ((width, rank), (rank, width)))
    task = {"targets": [{"name": "Ann Author", "kind": "style", "anchor": "blob"}], "keeps": ["a rose"]}
    info = EditInfo("uce", {"lamb": 0.5}, task, model.family, model.fingerprint)
    return Edit(info, (TextMap(0.2 * up, down, tuple(site.name for site in model.sites())),), dict(deltas or {}))


def dense(model: Model, *names: str, size: float = 0.05) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: size * torch.randn(model.weight(name).shape, generator=generator) for name in names}


def metadata_of(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


@torch.inference_mode()
def noise(pipe: Any, states: Tensor) -> Tensor:
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    predicted: Tensor = pipe.unet(latents, 500, encoder_hidden_states=states).sample
    return predicted


@torch.inference_mode()
def states(pipe: Any, prompt: str) -> Tensor:
    ids = pipe.tokenizer([prompt], padding="max_length", return_tensors="pt").input_ids
    encoded: Tensor = pipe.text_encoder(ids).last_hidden_state
    return encoded


def test_the_factors_are_the_text_map_itself(model: Model, tmp_path: Path) -> None:
    edit = made(model)
    tensors = load_file(lora(model, edit, tmp_path / "lora"))
    matrix = torch.eye(32, dtype=torch.float64) + edit.text_maps[0].up.double() @ edit.text_maps[0].down.double()
    assert len(tensors) == 3 * len(model.sites())
    for site in model.sites():
        key = "lora_unet_" + site.key.removesuffix(".weight").replace(".", "_")
        weight, alpha = model.weight(site.name).double(), tensors[f"{key}.alpha"]
        up, down = tensors[f"{key}.lora_up.weight"], tensors[f"{key}.lora_down.weight"]
        assert float(alpha) == len(down) == edit.rank
        expected, found = weight @ matrix - weight, up.double() @ down.double()
        assert float((found - expected).norm() / expected.norm()) < 2e-7  # float32's rounding of the factors


@needs_peft
def test_base_and_lora_in_diffusers_draw_what_the_edited_folder_draws(model: Model, tmp_path: Path) -> None:
    edit = made(model)
    edited = open_model(folder(model, edit, tmp_path / "folder")).pipeline()
    pipe = model.pipeline()
    prompt = states(pipe, "a cat in noto style")
    before = noise(pipe, prompt)
    pipe.load_lora_weights(lora(model, edit, tmp_path / "lora"))
    # Largest difference seen: 4.8e-7, where the edit itself moves the prediction by 0.35.
    torch.testing.assert_close(noise(pipe, prompt), noise(edited, prompt), rtol=0, atol=2e-6)
    assert float((noise(edited, prompt) - before).abs().max()) > 1e-2


@needs_peft
def test_weights_with_the_lora_fused_are_the_edited_folders(model: Model, tmp_path: Path) -> None:
    edit = made(model)
    edited = open_model(folder(model, edit, tmp_path / "folder"))
    pipe = model.pipeline()
    pipe.load_lora_weights(lora(model, edit, tmp_path / "lora"))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    fused = dict(pipe.unet.named_parameters())
    for site in model.sites():
        torch.testing.assert_close(fused[site.key].data, edited.weight(site.name), rtol=0, atol=1e-6)


@needs_peft
def test_dense_changes_of_convolutions_and_text_encoders_load_too(model: Model, tmp_path: Path) -> None:
    edit = made(model, deltas=dense(model, CONVOLUTION, TEXT, model.sites()[0].name))
    edited = open_model(folder(model, edit, tmp_path / "folder")).pipeline()
    pipe = model.pipeline()
    pipe.load_lora_weights(lora(model, edit, tmp_path / "lora", rank=144))
    prompt = "a cat in noto style"
    torch.testing.assert_close(states(pipe, prompt), states(edited, prompt), rtol=0, atol=5e-6)
    ours, theirs = noise(pipe, states(pipe, prompt)), noise(edited, states(edited, prompt))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-6)


def test_what_a_cut_loses_is_told_and_is_the_least_possible(
    model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    edit = Edit(made(model).info, (), dense(model, CONVOLUTION))
    with caplog.at_level(logging.WARNING):
        file = lora(model, edit, tmp_path / "lora", rank=4)
    values = torch.linalg.svdvals(edit.deltas[CONVOLUTION].double().flatten(1))
    least = math.sqrt(float((values[4:] ** 2).sum() / (values**2).sum()))
    told = json.loads(metadata_of(file)["erase.lora"])["relative_error"][CONVOLUTION]
    assert told == pytest.approx(least, rel=1e-6)
    assert told > 0.1
    assert f"{100 * least:.1f} %" in caplog.text
    assert CONVOLUTION in caplog.text


def test_nothing_is_told_where_nothing_is_lost(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for dtype in ("float32", "float16"):
        file = lora(model, made(model), tmp_path / dtype, dtype=dtype)  # type: ignore[arg-type]
        losses = json.loads(metadata_of(file)["erase.lora"])["relative_error"].values()
        assert max(losses) < {"float32": 2e-7, "float16": 1e-3}[dtype]
    assert caplog.text == ""


def test_a_rank_above_the_weights_own_is_brought_down_to_it(model: Model, tmp_path: Path) -> None:
    file = lora(model, made(model, rank=50), tmp_path / "lora", loss=0.0)
    ranks = {len(value) for key, value in load_file(file).items() if "lora_down" in key}
    assert ranks == {max(min(site.rows, site.columns) for site in model.sites())} == {32}
    assert max(json.loads(metadata_of(file)["erase.lora"])["relative_error"].values()) < 1e-6


def test_all_modules_have_one_rank_because_diffusers_knows_only_one_alpha(model: Model, tmp_path: Path) -> None:
    tensors = load_file(lora(model, made(model, deltas=dense(model, CONVOLUTION)), tmp_path / "lora", rank=5))
    assert {float(value) for key, value in tensors.items() if key.endswith(".alpha")} == {5.0}
    assert {len(value) for key, value in tensors.items() if "lora_down" in key} == {5}


def test_the_strength_is_in_the_weights(model: Model, tmp_path: Path) -> None:
    whole, half = (load_file(lora(model, made(model).scaled(s), tmp_path / f"{s}")) for s in (1.0, 0.5))
    key = next(key.removesuffix(".alpha") for key in whole if key.endswith(".alpha"))
    product = [t[f"{key}.lora_up.weight"].double() @ t[f"{key}.lora_down.weight"].double() for t in (whole, half)]
    torch.testing.assert_close(product[0], 2 * product[1], rtol=1e-5, atol=1e-7)
    assert torch.equal(whole[f"{key}.alpha"], half[f"{key}.alpha"])


def test_other_programs_find_what_they_look_for(model: Model, tmp_path: Path) -> None:
    metadata = metadata_of(lora(model, made(model), tmp_path / "lora"))
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["modelspec.resolution"] == "16x16"
    assert metadata["modelspec.hash_sha256"] not in ("", "0x" + 64 * "0")
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "3"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert json.loads(metadata["erase.recipe"])["method"] == "uce"


def test_a_text_encoders_change_has_an_out_proj_beside_it_by_which_diffusers_knows_it(
    model: Model, tmp_path: Path
) -> None:
    tensors = load_file(lora(model, made(model, deltas=dense(model, TEXT)), tmp_path / "lora"))
    added = "lora_te_text_model_encoder_layers_0_self_attn_out_proj"
    assert not tensors[f"{added}.lora_up.weight"].any()
    assert not any("lora_te" in key for key in load_file(lora(model, made(model), tmp_path / "without")))


def test_keys_are_those_of_the_other_loaders() -> None:
    weight = torch.zeros(4, 4)
    assert module_key(TEXT, weight) == "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    assert module_key(TEXT, weight, two_encoders=True).startswith("lora_te1_text_model_")
    second = TEXT.replace("text_encoder.", "text_encoder_2.text_model.")
    assert module_key(second, weight, two_encoders=True).startswith("lora_te2_text_model_encoder_layers_0_")
    assert module_key("unet.add_embedding.linear_1.weight", weight) == "lora_unet_label_emb_0_0"


def test_names_can_be_left_out_of_the_file(model: Model, tmp_path: Path) -> None:
    edit = made(model)
    assert b"Ann Author" in lora(model, edit, tmp_path / "open").read_bytes()
    hidden = lora(model, edit, tmp_path / "hidden", redact="secret").read_bytes()
    assert b"Ann" not in hidden
    assert b"a rose" not in hidden
    assert lora(model, edit, tmp_path / "other", redact="another").read_bytes() != hidden


def test_the_same_edit_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    one, two = (lora(model, made(model), tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("name", ["unet.conv_out.bias", "text_encoder.embeddings.token_embedding.weight"])
def test_what_a_lora_cannot_hold_is_refused(name: str, model: Model, tmp_path: Path) -> None:
    with pytest.raises(BadEdit, match=f"{name}.*checkpoint"):
        lora(model, made(model, deltas=dense(model, name)), tmp_path / "lora")
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_not_overwritten(model: Model, tmp_path: Path) -> None:
    file = lora(model, made(model), tmp_path / "lora")
    assert lora(model, made(model), file) == file
    with pytest.raises(RunConflict):
        lora(model, made(model, seed=1), file)
    (tmp_path / "else.safetensors").write_bytes(b"mine")
    with pytest.raises(RunConflict):
        lora(model, made(model), tmp_path / "else")
    assert (tmp_path / "else.safetensors").read_bytes() == b"mine"


def test_another_base_and_a_rank_of_nothing_are_refused(model: Model, tmp_path: Path) -> None:
    other = open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))
    with pytest.raises(ModelMismatch):
        lora(other, made(model), tmp_path / "lora")
    with pytest.raises(BadOption, match="rank"):
        lora(model, made(model), tmp_path / "lora", rank=0)
