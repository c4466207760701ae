"""A single file holds the edited model tensor for tensor, as diffusers itself reads it, without any network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from erase.edit import Edit
from erase.errors import BadModel, ModelMismatch, RunConflict
from erase.export.checkpoint import checkpoint
from erase.export.parts.inspection import look_at
from erase.models import Model, open_model
from tests.export.test_lora import TEXT, dense, made

pytestmark = pytest.mark.usefixtures("no_network")
PARTS = ("unet", "vae", "text_encoder")


def edited(model: Model) -> Edit:
    return made(model, deltas=dense(model, TEXT, "unet.conv_in.weight"))


def load_single(file: Path, config: Path) -> Any:
    return StableDiffusionPipeline.from_single_file(
        file, config=str(config), local_files_only=True, safety_checker=None, feature_extractor=None
    )


def halved(source: Path) -> Path:
    for part in PARTS:
        (file,) = (source / part).glob("*.safetensors")
        save_file({key: value.half() for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return source


def metadata_of(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


def test_without_the_text_encoders_prefix_diffusers_would_refuse_it(model: Model, tmp_path: Path) -> None:
    tensors = load_file(checkpoint(model, edited(model), tmp_path / "single"))
    wrong = {key.replace("transformer.text_model.", "transformer."): value for key, value in tensors.items()}
    assert wrong.keys() != tensors.keys()
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(Exception, match="CLIPTextModel"):
        load_single(tmp_path / "wrong.safetensors", model.path)


def test_precision_is_kept(tiny_copy: Path, tmp_path: Path) -> None:
    model = open_model(halved(tiny_copy))
    tensors = load_file(checkpoint(model, edited(model), tmp_path / "single"))
    assert {value.dtype for value in tensors.values()} == {torch.float16}


def test_it_says_what_it_is(model: Model, tmp_path: Path) -> None:
    file = checkpoint(model, edited(model), tmp_path / "single")
    found = look_at(file)
    assert found.what == "a single-file checkpoint of Stable Diffusion 1"
    assert found.facts["erases"] == "Ann Author → blob"
    assert found.facts["tensors' hash"] == "as the file says"
    assert metadata_of(file)["modelspec.architecture"] == "stable-diffusion-v1"
    hidden = checkpoint(model, edited(model), tmp_path / "hidden", redact="secret")
    assert b"Ann" not in hidden.read_bytes()


def test_the_same_edit_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    one, two = (checkpoint(model, edited(model), tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one == two


def original(model: Model, place: Path) -> Path:
    """The model's own single file, with a tensor and metadata that nobody here knows."""
    tensors = load_file(checkpoint(model, edited(model).scaled(0.0), place.with_name("unedited")))
    more = {"alphas_cumprod": torch.linspace(1, 0, 10), "model_ema.decay": torch.tensor(0.9, dtype=torch.float64)}
    said = {"modelspec.title": "Base", "modelspec.license": "openrail", "someone": "else"}
    save_file(tensors | more, place, metadata=said)
    return place


def test_a_single_file_is_patched_and_keeps_all_else(model: Model, tmp_path: Path) -> None:
    source = original(model, tmp_path / "original.safetensors")
    before = source.read_bytes()
    file = checkpoint(model, edited(model), tmp_path / "patched", original=str(source))
    old, new = load_file(source), load_file(file)
    converted = load_file(checkpoint(model, edited(model), tmp_path / "converted"))
    assert old.keys() == new.keys()
    differ = {key for key in old if not torch.equal(old[key], new[key])}
    assert len(differ) == len(edited(model).touches)
    assert all(torch.equal(new[key], converted[key]) for key in converted)
    assert new["model_ema.decay"].dtype == torch.float64
    said = metadata_of(file)
    assert (said["modelspec.license"], said["someone"]) == ("openrail", "else")
    assert said["modelspec.title"].endswith("without Ann Author")
    assert json.loads(said["erase.recipe"])["method"] == "uce"
    assert source.read_bytes() == before


def test_a_single_file_of_another_model_or_precision_is_refused(model: Model, tmp_path: Path) -> None:
    source = original(model, tmp_path / "original.safetensors")
    tensors = load_file(source)
    key = next(key for key in tensors if key.endswith("attn2.to_k.weight"))
    save_file(tensors | {key: tensors[key] + 1}, tmp_path / "other.safetensors")
    save_file({name: value.half() for name, value in tensors.items()}, tmp_path / "half.safetensors")
    save_file({name: value for name, value in tensors.items() if name != key}, tmp_path / "less.safetensors")
    for name, match in (("other", "not what the model has"), ("half", "same precision"), ("less", "has no")):
        with pytest.raises(ModelMismatch, match=match):
            checkpoint(model, edited(model), tmp_path / "out", original=str(tmp_path / f"{name}.safetensors"))
    assert not (tmp_path / "out.safetensors").exists()


def test_a_file_that_is_no_checkpoint_is_refused(model: Model, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(BadModel, match="no checkpoint that is known"):
        checkpoint(model, edited(model), tmp_path / "out", original=str(tmp_path / "a.safetensors"))


def test_another_file_is_not_overwritten(model: Model, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"mine")
    with pytest.raises(RunConflict):
        checkpoint(model, edited(model), tmp_path / "mine")
    assert (tmp_path / "mine.safetensors").read_bytes() == b"mine"
