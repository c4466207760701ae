"""An edit beside earlier ones: what those speak of is held, and their sum still does what each did."""

from __future__ import annotations

from dataclasses import asdict

import torch

from erase.edit import Edit
from erase.methods.closed_form.phrasings import after
from erase.methods.uce import UCE
from erase.models import Model
from erase.task import Target, Task

FIRST = Task([Target("Van Gogh", anchor="painting", synonyms=("Vincent",), prompts=("a cat by {}",))])
SECOND = Task([Target("José Ribera", anchor="painting")], ["Claude Monet"])


def moved(model: Model, edit: Edit, texts: list[str]) -> float:
    """How far an edit moves what the first weight makes of texts' last words, relative to it."""
    name = model.sites()[0].name
    before = model.weight(name).double()
    change = edit.changed_tensor(name, model.weight(name)).double() - before
    encoding = model.encode(texts)
    states = encoding.states[torch.arange(len(texts)), encoding.lengths - 2].double()
    return float((states @ change.T).norm() / (states @ before.T).norm())


def test_prompts_of_the_earlier_targets_and_of_what_they_became_must_stay(model: Model) -> None:
    task = after(model, SECOND, [{"task": asdict(FIRST)}])
    assert {"Van Gogh", "a cat by Van Gogh", "a cat by Vincent", "a cat by painting"} <= set(task.prompts)
    assert task.targets == SECOND.targets
    assert task.keeps == SECOND.keeps


def test_prompts_that_name_the_new_target_are_left_out(model: Model) -> None:
    again = after(model, Task([Target("vincent")]), [{"task": asdict(FIRST)}])
    assert not any("vincent" in text.lower() for text in again.prompts)
    assert "a cat by Van Gogh" in again.prompts


def test_the_parts_of_a_sum_count_each(model: Model) -> None:
    both = UCE()(model, FIRST) + UCE()(model, SECOND)
    task = after(model, Task([Target("Rembrandt")]), [asdict(both.info)])
    assert {"a cat by Van Gogh", "José Ribera"} <= set(task.prompts)


def test_an_edit_beside_an_earlier_one_moves_its_targets_less(model: Model) -> None:
    plain, beside = (UCE()(model, task) for task in (SECOND, after(model, SECOND, [{"task": asdict(FIRST)}])))
    texts = ["a cat by Van Gogh", "Van Gogh"]
    assert moved(model, beside, texts) < 0.7 * moved(model, plain, texts)
    assert moved(model, beside, ["José Ribera"]) > 0.1
