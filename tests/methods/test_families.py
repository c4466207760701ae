"""Every closed form on every family: it brings targets to their anchors, or refuses by name what it cannot edit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase import registry
from erase.errors import CannotEdit
from erase.models import Model
from erase.task import Target, Task

MAPS = ("mace", "rece", "redirect", "speed", "time", "uce")
# Scales are meant for states of true models, which are longer than those of tiny random ones; MACE's stage leaves the
# target's own word alone by default.
OPTIONS: dict[str, dict[str, Any]] = {
    "mace": {"words": "all", "lamb": 1e-4},
    "time": {"lamb": 1e-4},
}
TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("a cat", "dog", "rose"))


def make(method: str, model: Model) -> Any:
    build: Any = registry.load("methods", method)
    return build(**OPTIONS.get(method, {}))(model, TASK)


def test_the_maps_are_all_methods_that_there_are_of_the_kind() -> None:
    assert set(MAPS) <= set(registry.known("methods"))


@pytest.mark.parametrize("method", MAPS)
def test_it_edits_all_weights_that_read_the_prompt_and_brings_the_target_nearer(method: str, each_model: Model) -> None:
    edit = make(method, each_model)
    expected = {site.name for site in each_model.sites() if site.reads != "stream"}
    assert expected
    assert set(edit.touches) == expected
    for _, value in edit.changed(each_model):
        assert torch.isfinite(value).all()
    matrix = edit.text_maps[0].matrix()
    old, new = each_model.encode(["noto", "blob"]).states.double()
    assert (old @ matrix.T - new).norm() < 0.99 * (old - new).norm()


def test_an_edit_of_one_text_encoder_is_refused_where_there_are_others(each_model: Model) -> None:
    if [text.kind for text in each_model.texts] == ["CLIPTextModel"]:
        assert make("refact", each_model).touches
        return
    with pytest.raises(CannotEdit, match="refact edits models with one CLIP text encoder"):
        make("refact", each_model)


@pytest.mark.parametrize("weights", ["values", "keys"])
def test_a_role_that_a_family_lacks_is_refused_by_name(weights: str, each_model: Model) -> None:
    build: Any = registry.load("methods", "time")
    if {site.role for site in each_model.sites() if site.reads == "tokens"} == {"key", "value"}:
        assert {name[-8] for name in build(weights=weights)(each_model, TASK).touches} == {weights[0]}
        return
    with pytest.raises(CannotEdit, match="time cannot edit"):
        build(weights=weights)(each_model, TASK)
