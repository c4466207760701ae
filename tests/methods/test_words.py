"""A task's words fit into what the model takes, or that is told."""

from __future__ import annotations

import pytest

from erase.errors import PromptTooLong
from erase.methods._words import concept_text
from erase.models import Model
from erase.task import Target, Task


def task(count: int, *synonyms: str) -> Task:
    names = ("cat", "dog", "car", "fish", "bomb", "rose", "noto", "blob")[:count]
    return Task(tuple(Target(name, "object", synonyms=synonyms if name == "cat" else ()) for name in names))


def test_all_words_are_named_where_they_fit(model: Model) -> None:
    assert concept_text(model, task(2, "kitty")) == "cat, kitty, dog"


def test_names_alone_are_named_where_words_do_not_fit(model: Model) -> None:
    many = task(4, "kitty", "icon of the style", "drawing")
    # 9 words, 5 commas, start and end are 16 tokens and fit; one synonym more does not
    assert concept_text(model, task(4, "kitty", "icon of the style")).startswith("cat, kitty, icon")
    assert concept_text(model, many) == "cat, dog, car, fish"


def test_more_names_than_fit_are_told(model: Model) -> None:
    with pytest.raises(PromptTooLong):
        concept_text(model, task(8))
