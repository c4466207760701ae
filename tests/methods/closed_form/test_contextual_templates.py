"""In which prompts a target is learned beside what is kept."""

from __future__ import annotations

import pytest

from erase.methods.closed_form.contextual_templates import beside, place_like, places_for, template_in
from erase.task import Target, Task

SQUARE = ("an apple in oil", "an orange in oil", "a dog in ink", "a dog beside an apple", "ink", "a house by night")


def test_a_target_is_learned_in_as_many_keeps_as_asked() -> None:
    task = Task((Target("noto", "style", anchor="blob"),), keeps=("object:cat", "object:dog", "twemoji", "object:tree"))
    assert list(beside(task, task.targets[0], 0)) == []
    assert list(beside(task, task.targets[0], 2)) == [
        ("a cat in {} style", "a cat in blob style"),
        ("a tree in {} style", "a tree in blob style"),
    ]
    empty = Task((Target("bomb", "unsafe"),), keeps=("style:mono", "rose"))
    assert list(beside(empty, empty.targets[0], 1)) == [("a {} in mono style", "mono style")]


def test_a_prompt_that_names_the_anchor_is_what_the_target_becomes() -> None:
    task = Task((Target("dagger", "object", anchor="apple"),), keeps=("an apple in oil",))
    assert list(beside(task, task.targets[0], 4)) == [("a {} in oil", "an apple in oil")]


def test_prompts_like_those_of_the_anchor_are_places_too() -> None:
    """The dog's ink is one: nothing but the dog and the ink is new. The house's night has another preposition."""
    assert places_for("apple", SQUARE) == ("a {} in oil", "a dog beside a {}", "a {} in ink")
    assert places_for("pear", SQUARE) == ()


@pytest.mark.parametrize(
    ("prompt", "place"),
    [
        ("a dog in ink", "a {} in ink"),
        ("a dog in oil", "a {} in oil"),
        ("an owl in ink", "a {} in ink"),
        ("a dog by ink", ""),
        ("a dog in thick ink", ""),
        ("ink in ink", ""),
    ],
)
def test_a_prompt_is_alike_if_one_word_more_differs(prompt: str, place: str) -> None:
    assert place_like("a {} in oil".split(), prompt) == place


def test_a_slot_stands_for_one_whole_word() -> None:
    assert template_in("a big orange, please", "orange") == "a big {}, please"
    assert template_in("an orange", "orange") == "a {}"
    assert template_in("a blob beside a blob", "blob") == ""
    assert template_in("a blobfish", "blob") == ""
    assert template_in("a {blob}", "blob") == ""
    assert template_in("a blob", "") == ""
