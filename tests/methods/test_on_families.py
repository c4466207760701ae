"""Every closed form on every model family: an edit that holds what it says, or a refusal that names the family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from erase import registry
from erase.edit import Edit
from erase.errors import EraseError
from erase.models import Condition, Model, conditions_of, fingerprint_of
from erase.task import Target, Task
from tests.families import Opener
from tests.models.probes import run
from tests.tiny_families import FAMILIES

TASK = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),), keeps=("a dog in blob style",))
PROMPT = "a cat in noto style"


def is_closed_form(name: str) -> bool:
    """Whether a method changes weights without any steps of training."""
    method: Any = registry.load("methods", name)
    return not hasattr(method, "guide") and "steps" not in {field.name for field in dataclasses.fields(method)}


METHODS = [name for name in registry.known("methods") if is_closed_form(name)]


def prediction(pipe: Any) -> torch.Tensor:
    """What the edited pipeline predicts for a target's prompt, its own text encoders included."""
    with torch.inference_mode():
        return run(pipe, Condition.stack([conditions_of(pipe, [PROMPT])[PROMPT]]))


def test_there_is_a_closed_form() -> None:
    assert "uce" in METHODS


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_an_edit_reaches_the_prediction_and_is_undone_to_the_bit(
    method: str, family: str, family_model: Opener, pipe_of: Callable[[str], Any]
) -> None:
    model, pipe = family_model(family), pipe_of(family)
    edit = make_or_refuse(method, model)
    if isinstance(edit, str):
        assert family in edit
        return
    sites = {site.name for site in model.sites()}
    assert edit.touches
    assert all(name in sites or name.startswith(model.text_components) for name in edit.touches)
    before, weights = prediction(pipe), fingerprint_of(pipe)
    with edit.apply(pipe):
        assert fingerprint_of(pipe) != weights
        assert (prediction(pipe) - before).abs().max() > 1e-5
    assert fingerprint_of(pipe) == weights
    assert torch.equal(prediction(pipe), before)


def make_or_refuse(method: str, model: Model) -> Edit | str:
    """The method's edit, or what it said when it refused the model."""
    build: Any = registry.load("methods", method)
    try:
        edit: Edit = build()(model, TASK)
    except EraseError as error:
        return str(error)
    return edit
