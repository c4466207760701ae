"""A pipeline in memory is a model like the folder that it was loaded from, and is never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import erase
from erase.config.prompts import Row
from erase.errors import BadModel, BadWeights, EraseError
from erase.export.parts.inspection import look_at
from erase.models import Model, open_model
from erase.sampling.generate import image_id, sample
from erase.sampling.sampler import Sampler

TASK = erase.Task([erase.Target("noto", "style", anchor="blob")], keeps=["firefox"])


def weights_of(pipe: Any) -> dict[str, torch.Tensor]:
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": value.clone() for name, part in parts.items() for key, value in part.state_dict().items()}


def test_it_has_the_sites_the_fingerprint_and_the_states_of_its_folder(each_model: Model, each_pipe: Any) -> None:
    loaded = open_model(each_pipe)
    assert type(loaded) is type(each_model)
    assert loaded.sites() == each_model.sites()
    assert loaded.fingerprint == each_model.fingerprint
    assert torch.equal(loaded.encode(["a cat in noto style"]).states, each_model.encode(["a cat in noto style"]).states)


def test_its_edit_is_that_of_its_folder_and_changes_nothing_in_it(each_model: Model, each_pipe: Any) -> None:
    before = weights_of(each_pipe)
    loaded = open_model(each_pipe)
    edit = erase.edit(loaded, TASK, method="uce")
    assert edit.content == erase.edit(each_model, TASK, method="uce").content
    copied = loaded.pipeline()
    with edit.apply(copied):
        after = weights_of(each_pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pipeline_that_was_changed_is_another_model(model: Model) -> None:
    pipe = model.pipeline()
    site = open_model(pipe).sites()[0]
    dict(pipe.unet.named_parameters())[site.key].data.mul_(1.5)
    changed = open_model(pipe)
    assert changed.fingerprint != model.fingerprint
    assert torch.equal(changed.weight(site.name), 1.5 * model.weight(site.name))
    edit = erase.edit(changed, TASK, method="uce")
    with edit.apply(pipe), pytest.raises(EraseError, match="made for the base model"):
        edit.apply(model.pipeline())


def test_its_images_are_those_of_its_folder(model: Model) -> None:
    sampler, rows = Sampler(steps=2, batch=2), [Row("a cat in noto style", 0), Row("a dog", 1)]
    ours = [image.tobytes() for _, image in sample(open_model(model.pipeline()), rows, sampler)]
    assert ours == [image.tobytes() for _, image in sample(model, rows, sampler)]


def test_it_is_exported_from_memory(model: Model, tmp_path: Path) -> None:
    pipe = model.pipeline()
    edit = erase.edit(pipe, TASK, method="uce")
    for to, name in (("folder", "edited"), ("checkpoint", "edited.safetensors"), ("lora", "lora.safetensors")):
        assert erase.export(edit, pipe, to=to, path=tmp_path / name).exists()
    with edit.apply(pipe):
        assert open_model(tmp_path / "edited").fingerprint == open_model(pipe).fingerprint
    assert "LoRA" in look_at(tmp_path / "lora.safetensors").what


def test_it_is_drawn_in_the_precision_that_is_asked_for(model: Model) -> None:
    row, sampler = Row("a cat in noto style", 0), Sampler(steps=2, batch=1)
    half = open_model(model.path, torch_dtype=torch.bfloat16, device="cpu")
    pipe = half.pipeline()
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    ((_, image),) = sample(half, [row], sampler)
    ((_, full),) = sample(model, [row], sampler)
    assert image.tobytes() != full.tobytes()
    assert image_id(half, row, sampler, edit=None) != image_id(model, row, sampler, edit=None)
    assert half.fingerprint == model.fingerprint


def test_what_an_edit_would_miss_in_a_pipeline_is_refused(model: Model) -> None:
    fused = model.pipeline()
    fused.unet.fuse_qkv_projections()
    with pytest.raises(BadModel, match="fused projections"):
        open_model(fused)
    offloaded = model.pipeline()
    offloaded.unet.to("meta")
    with pytest.raises(BadModel, match="remove_all_hooks"):
        open_model(offloaded)
    coarse = model.pipeline()
    coarse.unet.conv_in.weight.data = coarse.unet.conv_in.weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(BadWeights, match="quantised"):
        open_model(coarse)


@pytest.mark.parametrize("given", [None, 1, torch.nn.Linear(1, 1)])
def test_what_is_no_model_is_one_line(given: object) -> None:
    with pytest.raises(BadModel, match="expected a model's name, path or id, or a loaded diffusers pipeline"):
        open_model(given)
