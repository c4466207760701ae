"""A task that contradicts itself is refused when it is made."""

from __future__ import annotations

import pytest

from erase.errors import BadTask
from erase.task import Target, Task


def test_an_empty_target_list_is_refused() -> None:
    with pytest.raises(BadTask, match="empty"):
        Task(())


@pytest.mark.parametrize("keep", ["noto", "Noto ", "google"])
def test_a_target_that_is_also_kept_is_refused(keep: str) -> None:
    with pytest.raises(BadTask, match="a target and a keep"):
        Task((Target("noto", "style", synonyms=("google",)),), keeps=(keep,))


@pytest.mark.parametrize("anchor", ["noto", " NOTO", "google"])
def test_an_anchor_equal_to_its_target_is_refused(anchor: str) -> None:
    with pytest.raises(BadTask, match="itself as its anchor"):
        Target("noto", "style", anchor=anchor, synonyms=("google",))


def test_a_repeated_target_is_refused() -> None:
    with pytest.raises(BadTask, match="twice"):
        Task((Target("cat", "object"), Target("Cat", "object")))


def test_targets_of_two_kinds_are_refused() -> None:
    with pytest.raises(BadTask, match="kinds object and style"):
        Task((Target("cat", "object"), Target("noto", "style")))


def test_unsafe_targets_are_objects_to_the_judge() -> None:
    assert Task((Target("bomb", "unsafe"), Target("cat", "object"))).domain == "object"


def test_a_nameless_target_is_refused() -> None:
    with pytest.raises(BadTask, match="no name"):
        Target(" ", "style")


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadTask, match="style, object, unsafe, identity"):
        Target("cat", "animal")  # type: ignore[arg-type]


def test_a_prompt_without_a_place_for_the_concept_is_refused() -> None:
    with pytest.raises(BadTask, match="must hold one"):
        Target("cat", "object", prompts=("a cat",))
