"""Harden: what is found against the edit is folded back into its equations, and what was held stays held."""

from __future__ import annotations

import pytest
import torch

from erase.context import RunContext
from erase.errors import BadModel, BadOption
from erase.methods.harden import Harden, _Search
from erase.methods.redirect import Redirect
from erase.methods.training.denoiser import Denoiser
from erase.models import Model, open_model
from erase.task import Target, Task

TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("cat", "dog", "twemoji"))
SMALL = {"starts": 1, "steps": 3, "batch": 2, "pictures": 2, "sampling_steps": 2, "contexts": 10}


def moved(method: Redirect, model: Model) -> torch.Tensor:
    return method(model, TASK).text_maps[0].matrix()


def test_without_a_search_it_is_redirect_in_the_same_contexts(model: Model) -> None:
    same, plain = moved(Harden(**SMALL, rounds=0), model), moved(Redirect(contexts=10), model)
    assert torch.allclose(same, plain)


def test_what_was_found_comes_nearer_to_the_anchor_than_without(model: Model) -> None:
    search = _Search(Harden(**SMALL), model, Denoiser.of(model, text_encoder=True), RunContext())
    search.put(Redirect(contexts=10)(model, TASK))
    texts = ["noto", "a cat in noto style"]
    tokens = search.tokens(TASK.targets[0], *search.pictures(texts), seed=0)
    found = search.moments(TASK.targets[0], texts, tokens)

    def left(matrix: torch.Tensor) -> float:
        """The sum of |(M - I) o - (n - o)|^2, from the second moments in float64."""
        step = matrix.double() - torch.eye(len(matrix), dtype=torch.float64)
        return float((step @ found.old @ step.T).trace() - 2 * (step @ found.cross.T).trace() + found.way.trace())

    hard = Harden(**SMALL, rounds=1, weight=10.0)
    assert left(moved(hard, model)) < left(moved(Redirect(contexts=10), model))


def test_the_empty_prompt_stays(model: Model) -> None:
    matrix, empty = moved(Harden(**SMALL, rounds=1), model).double(), model.encode([""]).states[0].double()
    assert (empty[:1] @ matrix.T - empty[:1]).abs().max() < 1e-4


def test_soft_tokens_stand_where_the_name_did_and_become_the_anchors_words(model: Model) -> None:
    search = _Search(Harden(**SMALL, weight=0.5), model, Denoiser.of(model, text_encoder=True), RunContext())
    ids = search.tokenizer("blob", add_special_tokens=False)["input_ids"]
    anchor = search.encoder.table[torch.tensor(ids[:1] * 2)]
    found = search.moments(TASK.targets[0], ["a cat in noto style"], anchor)
    if len(ids) == 1:  # its own words move nowhere
        assert float(found.way.abs().max()) < 1e-9
    assert found.count > 0


def test_a_model_of_several_text_encoders_is_refused() -> None:
    with pytest.raises(BadModel, match="expected one text encoder"):
        Harden()(open_model("emoji-flow"), TASK)


@pytest.mark.parametrize("options", [{"rounds": -1}, {"starts": 0}, {"weight": 0.0}])
def test_options_out_of_range_are_told_by_name(options: dict[str, float]) -> None:
    with pytest.raises(BadOption, match="harden"):
        Harden(**options)  # type: ignore[arg-type]
