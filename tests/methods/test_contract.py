"""What every method promises, whatever it does: one suite over all of them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from erase import registry
from erase.edit import Edit
from erase.models import Model, open_model
from erase.run.options import method_with
from erase.task import Target, Task

METHODS = registry.known("methods")
GUIDES = [method for method in METHODS if hasattr(registry.load("methods", method), "guide")]
WEIGHTS = [method for method in METHODS if method not in GUIDES]
TASK = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),), keeps=("a dog in blob style",))


# A trained method keeps its promises after a few steps, too.
QUICK = {"steps": 3, "trajectories": 2, "sampling_steps": 3, "warm_up": 1, "attack_steps": 2}
QUICK |= {"search_steps": 2, "inversion_steps": 2}


def make(method: str, model: Model) -> Edit:
    build: Any = registry.load("methods", method)
    known = [field.name for field in fields(build)]
    edit = build(**{key: value for key, value in QUICK.items() if key in known})(model, TASK)
    assert isinstance(edit, Edit)
    return edit


@pytest.fixture(scope="module")
def made() -> dict[str, Edit]:
    """Edits that were made already, by their method."""
    return {}


@pytest.fixture(params=METHODS)
def edit(request: pytest.FixtureRequest, model: Model, made: dict[str, Edit]) -> Edit:
    """Each method's edit, made once."""
    if request.param not in made:
        made[request.param] = make(request.param, model)
    return made[request.param]


@pytest.fixture
def change(edit: Edit) -> Edit:
    """Each method's edit that changes weights."""
    if edit.info.method in GUIDES:
        pytest.skip("it guides the sampling and changes no weight")
    return edit


@pytest.fixture(scope="module")
def pipe(model: Model) -> Any:
    """One pipeline for all of them: each test has to put it back as it was."""
    return model.pipeline()


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


def test_applying_changes_only_what_it_says_and_undoing_restores_every_bit(change: Edit, pipe: Any) -> None:
    before = weights(pipe)
    applied = change.apply(pipe)
    after = weights(pipe)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    applied.undo()
    assert changed
    assert changed <= set(change.touches)
    assert same(before, weights(pipe))


def test_zero_strength_changes_no_bit(change: Edit, pipe: Any) -> None:
    before = weights(pipe)
    with change.scaled(0.0).apply(pipe):
        assert same(before, weights(pipe))


def test_saving_and_loading_keeps_every_bit(edit: Edit, model: Model, tmp_path: Path) -> None:
    edit.save(tmp_path / "edit.safetensors")
    again = Edit.load(tmp_path / "edit.safetensors")
    assert again.info == edit.info
    assert again.content == edit.content
    assert bool(edit.touches) == (edit.info.method in WEIGHTS)
    for name in edit.touches[:1]:
        assert torch.equal(
            again.changed_tensor(name, model.weight(name)), edit.changed_tensor(name, model.weight(name))
        )


def test_the_same_task_gives_the_same_edit(edit: Edit, model: Model, tmp_path: Path) -> None:
    for name, one in {"one": edit, "two": make(edit.info.method, model)}.items():
        one.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_it_changes_each_tensor_by_a_finite_amount_that_is_not_nothing(change: Edit, model: Model) -> None:
    for name, value in change.changed(model):
        assert not torch.equal(value, model.weight(name)), name
        assert value.dtype == model.weight(name).dtype


@pytest.mark.parametrize("method", METHODS)
def test_its_options_are_plain_values_that_a_pipeline_file_can_hold(method: str) -> None:
    build: Any = registry.load("methods", method)
    assert replace(build()) == build()
    assert build.__doc__


@pytest.mark.parametrize("method", METHODS)
def test_no_site_is_an_error_and_not_an_empty_edit(method: str, tiny_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    from erase.errors import BadModel

    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if "attn2" not in key}, file)
    with pytest.raises(BadModel, match=r"lacks the tensor .*attn2"):
        make(method, open_model(tiny_copy))


@pytest.mark.parametrize(
    ("method", "preset"),
    [(name, preset) for name in METHODS for preset in getattr(registry.load("methods", name), "presets", {})],
)
def test_its_presets_are_options_of_its_own(method: str, preset: str) -> None:
    made, build = method_with(method, {"preset": preset}), registry.load("methods", method)
    assert isinstance(made, build)  # type: ignore[arg-type]
    assert {key: getattr(made, key) for key in build.presets[preset]} == build.presets[preset]  # type: ignore[attr-defined]
