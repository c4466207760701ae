"""A model in another precision is recognised as the same, whichever of the two an edit was made on; others are not."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erase.edit import Edit
from erase.errors import ModelMismatch
from erase.foreign import edit_in
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.models.precision import rounded_fingerprints
from erase.models.storage.weights import narrowest
from erase.task import Target, Task

TASK = Task([Target("Ann Author", anchor="painting")], keeps=["Bob"])


def in_dtype(source: Path, target: Path, dtype: torch.dtype) -> Model:
    """A copy of a model, as its publisher rounds it."""
    shutil.copytree(source, target)
    for file in target.glob("*/*.safetensors"):
        save_file({key: value.to(dtype) for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    return open_model(target)


@pytest.fixture
def fine(tiny_copy: Path) -> Model:
    """A model whose weights no half precision holds."""
    torch.manual_seed(3)
    for file in tiny_copy.glob("*/*.safetensors"):
        tensors = {key: value + 1e-5 * torch.randn(value.shape) for key, value in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
    return open_model(tiny_copy)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("made_on_the_finer", [True, False])
def test_an_edit_of_one_precision_is_put_on_another_and_this_is_told(
    fine: Model, dtype: torch.dtype, made_on_the_finer: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    coarse = in_dtype(fine.path, tmp_path / "coarse", dtype)
    base, other = (fine, coarse) if made_on_the_finer else (coarse, fine)
    edit = UCE()(base, TASK)
    edit.save(file := tmp_path / "edit.safetensors")
    with pytest.raises(ModelMismatch):
        edit.check(other)
    with caplog.at_level(logging.WARNING):
        put = edit_in(file, other)
    name = str(dtype).removeprefix("torch.")
    assert name in caplog.text
    assert put.info.base == other.fingerprint
    assert put.info.record["rebased"]["from"] == base.fingerprint
    for site, value in put.changed(other):
        exact = (value.double() - edit.change(site, other.weight(site)) - other.weight(site).double()).abs().max()
        assert exact <= torch.finfo(other.weight(site).dtype).eps * float(value.abs().max())
    put.save(file)
    assert Edit.load(file).content == put.content


def test_a_loaded_pipeline_in_another_precision_takes_the_edit_and_gives_its_weights_back(
    fine: Model, caplog: pytest.LogCaptureFixture
) -> None:
    edit, pipe = UCE()(fine, TASK), fine.pipeline(torch.float16)
    site = edit.touches[0].removeprefix("unet.")
    before = pipe.unet.state_dict()[site].clone()
    with caplog.at_level(logging.WARNING), edit.apply(pipe):
        assert not torch.equal(pipe.unet.state_dict()[site], before)
    assert "float16" in caplog.text
    assert torch.equal(pipe.unet.state_dict()[site], before)


@pytest.mark.parametrize("change", [lambda value: value * 1.01, lambda value: -value])
def test_another_model_is_refused_in_any_precision(
    fine: Model, change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    other = in_dtype(fine.path, tmp_path / "other", torch.float16)
    (file,) = (other.path / "text_encoder").glob("*.safetensors")
    tensors = load_file(file)
    key = next(key for key in tensors if key.endswith("token_embedding.weight"))
    save_file(tensors | {key: change(tensors[key])}, file, metadata={"format": "pt"})
    other = open_model(other.path)
    for one, another in ((fine, other), (other, fine)):
        with pytest.raises(ModelMismatch, match="another model, or an edited one"):
            UCE()(one, TASK).rebased(another)


def test_what_the_finer_model_holds_beyond_its_fingerprint_is_compared_rounded(fine: Model, tmp_path: Path) -> None:
    from erase.models.storage.weights import content_digest

    coarse = in_dtype(fine.path, tmp_path / "coarse", torch.float16)
    edit, name = UCE()(coarse, TASK), "unet.conv_in.weight"
    right = content_digest([(name, coarse.weight(name))])
    put = replace(edit, info=replace(edit.info, beyond={name: right})).rebased(fine)
    assert put.info.beyond == {name: content_digest([(name, fine.weight(name))])}
    with pytest.raises(ModelMismatch, match=r"unet\.conv_in"):
        replace(edit, info=replace(edit.info, beyond={name: "0" * 64})).rebased(fine)


def test_a_rounded_fingerprint_is_the_hash_of_the_rounded_values(fine: Model) -> None:
    digest = hashlib.sha256()
    for name, value in sorted(fine.identity()):
        rounded = narrowest(value.half())
        digest.update(f"{name}{tuple(rounded.shape)}{rounded.dtype}".encode())
        digest.update(rounded.contiguous().view(torch.uint8).numpy().tobytes())
    assert rounded_fingerprints(fine)["float16"] == digest.hexdigest()


def test_a_model_in_half_precision_has_no_rounded_fingerprint_and_its_edit_goes_on_itself(
    fine: Model, tmp_path: Path
) -> None:
    coarse = in_dtype(fine.path, tmp_path / "coarse", torch.float16)
    edit = UCE()(coarse, TASK)
    assert rounded_fingerprints(coarse) == {} == edit.info.rounded
    assert edit.rebased(coarse) is edit
