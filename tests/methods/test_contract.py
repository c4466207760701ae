"""What every method promises, whatever it does: one suite over all of them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from erase import names
from erase.edit import Edit
from erase.models import Model, open_model
from erase.task import Target, Task

METHODS = names.known("methods")
GUIDES = [method for method in METHODS if hasattr(names.load("methods", method), "guide")]
WEIGHTS = [method for method in METHODS if method not in GUIDES]
TASK = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),), keeps=("a dog in blob style",))


# A trained method keeps its promises after a few steps, too.
QUICK = {"steps": 3, "trajectories": 2, "sampling_steps": 3, "warm_up": 1, "attack_steps": 2}


def make(method: str, model: Model) -> Edit:
    build: Any = names.load("methods", method)
    known = [field.name for field in fields(build)]
    edit = build(**{key: value for key, value in QUICK.items() if key in known})(model, TASK)
    assert isinstance(edit, Edit)
    return edit


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    return {
        f"{part}.{key}": value.clone() for part, module in parts.items() for key, value in module.state_dict().items()
    }


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[key], right[key]) for key in left)


def test_there_is_at_least_one_method() -> None:
    assert WEIGHTS
    assert GUIDES


@pytest.mark.parametrize("method", WEIGHTS)
def test_applying_changes_only_what_it_says_and_undoing_restores_every_bit(method: str, model: Model) -> None:
    edit, pipe = make(method, model), model.pipeline()
    before = weights(pipe)
    applied = edit.apply(pipe)
    after = weights(pipe)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert changed <= set(edit.touches)
    applied.undo()
    assert same(before, weights(pipe))


@pytest.mark.parametrize("method", WEIGHTS)
def test_zero_strength_changes_no_bit(method: str, model: Model) -> None:
    pipe = model.pipeline()
    before = weights(pipe)
    make(method, model).scaled(0.0).apply(pipe)
    assert same(before, weights(pipe))


@pytest.mark.parametrize("method", METHODS)
def test_saving_and_loading_keeps_every_bit(method: str, model: Model, tmp_path: Path) -> None:
    edit = make(method, model)
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert again.info == edit.info
    assert again.content == edit.content
    assert bool(edit.touches) == (method in WEIGHTS)
    for name in edit.touches[:1]:
        assert torch.equal(
            again.changed_tensor(name, model.weight(name)), edit.changed_tensor(name, model.weight(name))
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_same_task_gives_the_same_edit(method: str, model: Model, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(method, model).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_its_options_are_plain_values_that_a_pipeline_file_can_hold(method: str) -> None:
    build: Any = names.load("methods", method)
    assert replace(build()) == build()
    assert build.__doc__


@pytest.mark.parametrize("method", METHODS)
def test_no_site_is_an_error_and_not_an_empty_edit(method: str, tiny_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    from erase.errors import BadModel

    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if "attn2" not in key}, file)
    with pytest.raises(BadModel, match="cross-attention"):
        make(method, open_model(tiny_copy))
