"""No copy of an edited weight is shipped as it was: each kind is edited or left out, named, and comes back by undo."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor

from erase.edit import Edit
from erase.errors import BadEdit
from erase.export.checkpoint import checkpoint
from erase.export.folder import folder
from erase.export.parts.inspection import look_at
from erase.export.parts.undo import undo, undo_file
from erase.models import Model, open_model
from tests.export.test_lora import TEXT, dense, made
from tests.recipes import contents
from tests.tiny_checkpoints import CHECKPOINTS, tiny_checkpoint

Tensors = dict[str, Tensor]
LDM = "model.diffusion_model."
UNET = "unet/diffusion_pytorch_model.safetensors"


def without_dots(tensors: Tensors) -> Tensors:
    """As LDM's LitEma names them."""
    return {f"model_ema.{key.removeprefix('model.').replace('.', '')}": value for key, value in tensors.items()}


KINDS: dict[str, Callable[[Tensors], Tensors]] = {
    "LDM's average": without_dots,
    "an average with its dots": lambda t: {f"model_ema.{key.removeprefix('model.')}": v for key, v in t.items()},
    "another beginning": lambda t: {f"unet_ema.{key.removeprefix(LDM)}": value for key, value in t.items()},
    "a beginning of three parts": lambda t: {f"ema.shadow.{key}": value for key, value in t.items()},
    "no beginning": lambda t: {key.removeprefix(LDM): value for key, value in t.items()},
}


def with_copies(file: Path, copies: Callable[[Tensors], Tensors]) -> Tensors:
    """Adds copies of a single file's network, near it and in another precision, and returns them."""
    tensors = load_file(file)
    network = {key: value for key, value in tensors.items() if key.startswith(LDM)}
    more = {key: (value * 1.01).half() for key, value in copies(network).items()}
    assert not more.keys() & tensors.keys()
    save_file(tensors | more | {"model_ema.decay": torch.tensor(0.9)}, file, metadata={"a": "b"})
    return more


def edited(model: Model) -> Edit:
    return made(model, deltas=dense(model, "unet.conv_in.weight"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_copy_in_a_single_file_is_edited_named_and_comes_back(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, source = tiny_checkpoint("stable-diffusion", tmp_path)
    copies = with_copies(source, KINDS[kind])
    model = open_model(source)
    edit, plain = edited(model), load_file(source)
    with caplog.at_level(logging.WARNING):
        file = checkpoint(model, edit, tmp_path / "edited", reversal=True)
    shipped = load_file(file)
    touched = {model.weights("unet").places[name.removeprefix("unet.")].key: name for name in edit.touches}
    assert len(touched) == len(model.sites()) + 1
    expected = {next(iter(KINDS[kind]({key: plain[key]}))): name for key, name in touched.items()}
    assert {key for key in copies if not torch.equal(copies[key], shipped[key])} == set(expected)
    for key, name in expected.items():
        assert torch.equal(shipped[key], edit.changed_tensor(name, copies[key]))
    assert f"{len(expected)} tensors that repeat edited ones were edited as well" in caplog.text
    assert str(look_at(file).facts["copies"]).startswith(f"{len(expected)} tensors")
    for base in (source, None):
        back = undo_file(file, tmp_path / f"back-{base is None}.safetensors", base=base)
        assert back.read_bytes() == source.read_bytes()


def test_what_diffusers_takes_from_the_average_is_edited(tmp_path: Path) -> None:
    base, source = tiny_checkpoint("stable-diffusion", tmp_path)
    with_copies(source, without_dots)
    model = open_model(source)
    config = UNet2DConditionModel.load_config(base / "unet")
    taken = [
        convert_ldm_unet_checkpoint(load_file(file), config=dict(config), extract_ema=True)
        for file in (source, checkpoint(model, edited(model), tmp_path / "edited"))
    ]
    for site in model.sites():
        moved = (taken[1][site.key].double() - taken[0][site.key].double()).norm() / taken[0][site.key].double().norm()
        assert float(moved) > 0.1


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_copies_of_text_encoders_are_edited_too_and_nothing_else_is_taken_for_one(family: str, tmp_path: Path) -> None:
    _, source = tiny_checkpoint(family, tmp_path)
    tensors = load_file(source)
    names = ("cond_stage_model", "conditioner")
    copies = {f"ema.{key}": value for key, value in tensors.items() if key.startswith(names)}
    copies |= {key.replace(LDM, "control_model."): value for key, value in tensors.items() if key.startswith(LDM)}
    save_file(tensors | {key: value.clone() for key, value in copies.items()}, source)
    model = open_model(source)
    changed = [f"{part}.encoder.layers.0.self_attn.k_proj.weight" for part in model.text_components]
    edit = Edit(made(model).info, (), dense(model, *changed, "unet.conv_in.weight"))
    shipped = load_file(checkpoint(model, edit, tmp_path / "edited"))
    differ = {key for key in copies if not torch.equal(copies[key], shipped[key])}
    assert differ == {
        f"ema.{model.weights(name.partition('.')[0]).places[name.partition('.')[2]].key}" for name in changed
    }


def test_a_folder_does_not_undo_copies_that_only_the_file_held(tmp_path: Path) -> None:
    base, source = tiny_checkpoint("stable-diffusion", tmp_path)
    with_copies(source, without_dots)
    file = checkpoint(open_model(source), edited(open_model(source)), tmp_path / "edited")
    with pytest.raises(BadEdit, match=r"does not hold model_ema\..*single file"):
        undo_file(file, tmp_path / "back.safetensors", base=base)


def whole_file(model: Model, place: Path) -> Path:
    """The tiny model as one file, autoencoder and all, with LDM's average in it."""
    file = checkpoint(model, edited(model).scaled(0.0), place)
    with_copies(file, without_dots)
    return file


def test_a_folder_made_from_a_single_file_names_the_copies_that_it_left_out(model: Model, tmp_path: Path) -> None:
    single = open_model(whole_file(model, tmp_path / "single"), config=model.path)
    out = folder(single, edited(single), tmp_path / "out")
    told = manifest(out)["left_out"]
    assert len(told) == len(single.sites()) + 1
    assert all(name.startswith("single.safetensors: model_ema.diffusion_model") for name in told)


def manifest(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return content


def copied(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(base / UNET, base / name)


LEFT_OUT = (
    "model.ckpt",
    "model-pruned-ema.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    "unet/old/diffusion_pytorch_model.safetensors",
    "unet_ema/diffusion_pytorch_model.safetensors",
    "unet_ema/diffusion_pytorch_model.bin",
    "checkpoint-500/unet/model.safetensors",
    "text_encoder/pytorch_model.bin",
)


def test_every_kind_of_copy_beside_a_folders_weights_is_left_out_and_named(
    tiny_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = ("vae/diffusion_pytorch_model.bin", "controlnet/diffusion_pytorch_model.safetensors", "lora/x.safetensors")
    copied(tiny_copy, *LEFT_OUT, *kept)
    shutil.copyfile(tiny_copy / "unet/config.json", tiny_copy / "unet_ema/config.json")
    (tiny_copy / "controlnet/config.json").write_text('{"_class_name": "ControlNetModel"}', encoding="utf-8")
    save_file({"unet.a.attn2.to_k.lora_A.weight": torch.zeros(2, 2)}, tiny_copy / "lora/x.safetensors")
    model = open_model(tiny_copy)
    edit = made(model, deltas=dense(model, TEXT))
    with caplog.at_level(logging.WARNING):
        out = folder(model, edit, tmp_path / "out")
    assert sorted(manifest(out)["left_out"]) == sorted(LEFT_OUT)
    assert not [name for name in LEFT_OUT if (out / name).exists()]
    assert all((out / name).is_file() for name in kept)
    assert "left out, as they hold what was edited" in caplog.text
    assert f"and {len(LEFT_OUT) - 4} more" in caplog.text


def sharded_twice(base: Path) -> None:
    """A UNet in two shards, both of which hold every tensor, with an average in the second."""
    whole = load_file(base / UNET)
    (base / UNET).unlink()
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    save_file({key: value * 1.5 for key, value in whole.items()}, base / "unet" / names[0])
    save_file(whole | {f"ema.{key}": value * 2 for key, value in whole.items()}, base / "unet" / names[1])
    index = {"metadata": {}, "weight_map": {key: names[number % 2] for number, key in enumerate(sorted(whole))}}
    (base / f"{UNET}.index.json").write_text(json.dumps(index), encoding="utf-8")


def both_spellings(base: Path) -> None:
    """A text encoder with and without `text_model.` before its keys."""
    file = base / "text_encoder/model.safetensors"
    bare = {key.removeprefix("text_model."): value for key, value in load_file(file).items()}
    save_file(bare | {f"text_model.{key}": value * 3 for key, value in bare.items()}, file)


def before(file: Path, key: str) -> Tensor:
    """A tensor of the source, whose text encoder may lack the prefix."""
    tensors = load_file(file)
    return tensors[key] if key in tensors else tensors[key.removeprefix("text_model.")]


@pytest.mark.parametrize("spoil", [sharded_twice, both_spellings])
def test_every_kind_of_copy_inside_a_folders_weights_is_edited_and_comes_back(
    spoil: Callable[[Path], None], tiny_copy: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tiny_copy / "judge")
    spoil(tiny_copy)
    model = open_model(tiny_copy)
    edit = made(model, deltas=dense(model, TEXT))
    out = folder(model, edit, tmp_path / "out", reversal=True)
    told = {(record["file"], record["key"]): record["tensor"] for record in manifest(out)["changed"] if "key" in record}
    assert told
    for (file, key), name in told.items():
        assert torch.equal(load_file(out / file)[key], edit.changed_tensor(name, load_file(tiny_copy / file)[key]))
    ends = ("attn2.to_k.weight", "attn2.to_v.weight", TEXT.partition(".")[2])
    unedited = [
        f"{file}: {key}"
        for file in sorted(out.glob("*/*.safetensors"))
        for key, value in load_file(file).items()
        if key.endswith(ends) and torch.equal(value, before(tiny_copy / file.relative_to(out), key))
    ]
    assert unedited == []
    for base in (tiny_copy, None):
        assert contents(undo(out, tmp_path / f"back-{base is None}", base=base)) == contents(tiny_copy)
