"""A task that contradicts itself is refused when it is made."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from erase.errors import BadTask
from erase.task import Keep, Target, Task, asks_for, names


def test_an_empty_target_list_is_refused() -> None:
    with pytest.raises(BadTask, match="empty"):
        Task(())


@pytest.mark.parametrize("keep", ["noto", "Noto ", "google"])
def test_a_target_that_is_also_kept_is_refused(keep: str) -> None:
    with pytest.raises(BadTask, match="must stay and names the target"):
        Task((Target("noto", "style", synonyms=("google",)),), keeps=(keep,))


@pytest.mark.parametrize("anchor", ["noto", " NOTO", "google"])
def test_an_anchor_equal_to_its_target_is_refused(anchor: str) -> None:
    with pytest.raises(BadTask, match="itself in its anchor"):
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


# Which texts name which concepts: what a person would say, without knowing how it is found out.
NAMED = [
    ("a cat", "cat"),
    ("two cats", "cat"),
    ("a cat", "cats"),
    ("CAT!", "cat"),
    ("the cat's bowl", "cat"),
    ("the cats’ bowl", "cat"),
    ("a (cat:1.3) on a mat", "cat"),
    ("a cat-like thing", "cat"),
    ("Noto", "noto"),
    ("noto style", "Noto"),
    ("Monet's garden", "Monet"),
    ("by Claude  Monet", "claude monet"),
    ("van-gogh", "Van Gogh"),
    ("van_gogh style", "Van Gogh"),
    ("Vincent van Gogh", "Van Gogh"),
    ("café by Béla", "Bela"),
    ("cafe", "café"),
    ("GROSSE STRASSE", "große Straße"),
    ("two buses", "bus"),
    ("three foxes", "fox"),
    ("knives", "knife"),
    ("mice", "mouse"),
    ("wine glasses", "wine glass"),
    ("梵高风格的画", "梵高"),
    ("R2-D2 in a desert", "R2-D2"),
]
NOT_NAMED = [
    ("a cartoon", "car"),
    ("a category", "cat"),
    ("scatter", "cat"),
    ("a scarf", "car"),
    ("Monetary policy", "Monet"),
    ("by Gogh", "Vincent van Gogh"),
    ("a van", "Van Gogh"),
    ("Gogh van", "Van Gogh"),
    ("a van full of Gogh", "Van Gogh"),
    ("notorious", "noto"),
    ("a carp", "car"),
    ("begin", "be gin"),
    ("", "cat"),
    ("a dog", "cat"),
    ("class", "glass"),
]


@pytest.mark.parametrize(("text", "concept"), NAMED)
def test_a_text_names_a_concept_by_all_words_of_its_name(text: str, concept: str) -> None:
    assert names(text, concept)


@pytest.mark.parametrize(("text", "concept"), NOT_NAMED)
def test_parts_of_words_and_of_names_name_nothing(text: str, concept: str) -> None:
    assert not names(text, concept)


def test_part_of_a_name_names_it_where_it_is_given_as_a_synonym() -> None:
    assert names("a wheatfield by Gogh", Target("Vincent van Gogh", synonyms=("Gogh",)))


@pytest.mark.parametrize(
    "keep", ["a cat in noto style", "object:a Noto cat", "prompt:cats, noto", "noto's", "google icons"]
)
def test_a_keep_that_names_a_target_anywhere_is_refused(keep: str) -> None:
    with pytest.raises(BadTask, match="must stay and names the target"):
        Task([Target("noto", "style", synonyms=("google",))], keeps=[keep])


@pytest.mark.parametrize("anchor", ["noto style", "Noto's", "a google icon"])
def test_an_anchor_that_names_its_target_anywhere_is_refused(anchor: str) -> None:
    with pytest.raises(BadTask, match="itself in its anchor"):
        Target("noto", "style", anchor=anchor, synonyms=("google",))


def test_a_blank_anchor_is_the_empty_one() -> None:
    assert Target("bomb", "object", anchor=" ") == Target("bomb", "object", anchor="")


def test_a_keep_has_the_targets_kind_or_the_one_before_its_colon() -> None:
    task = Task([Target("Van Gogh", "style")], keeps=["Claude Monet", "object:hot dog", "a cat by Monet", "prompt:sea"])
    assert task.keeps == (Keep("Claude Monet", "style"), Keep("hot dog", "object"))
    assert task.prompts == ("a cat by Monet", "sea")
    assert task.kept == ("Claude Monet", "hot dog", "a cat by Monet", "sea")


def test_text_alone_makes_a_task() -> None:
    assert Task(["noto"], ["blob"]) == Task((Target("noto", "style"),), (Keep("blob", "style"),))


def test_a_task_comes_back_from_plain_values() -> None:
    target = Target("cat", "object", "dog", ("kitty",), ("a {}",), {"object": "cat", "style": "noto"}, "the")
    task = Task([target], ["style:blob", "a car"])
    assert Task.from_dict(json.loads(json.dumps(asdict(task)))) == task


def test_a_task_of_before_keeps_had_kinds_is_read() -> None:
    old = {"targets": [{"name": "noto", "kind": "style", "anchor": "", "synonyms": [], "prompts": []}]}
    assert Task.from_dict(old | {"keeps": ["blob", "a car"]}) == Task(["noto"], ["blob"], ["a car"])


@pytest.mark.parametrize("name", ["no{}to", "{color}", "no}to", " ", "\ud800"])
def test_a_name_that_no_prompt_can_hold_is_refused(name: str) -> None:
    for make in (lambda: Target(name), lambda: Keep(name), lambda: Target("cat", synonyms=(name,))):
        with pytest.raises(BadTask):
            make()


@pytest.mark.parametrize("template", ["{color} cat in {} style", "{} {}", "a {}}"])
def test_a_template_with_another_brace_is_refused(template: str) -> None:
    with pytest.raises(BadTask, match="no other brace"):
        Target("noto", prompts=(template,))


def test_a_pair_is_asked_for_by_both_labels_and_seen_by_both() -> None:
    pair = Target("cat in noto style", "style", "cat in fluent style", pair={"object": "cat", "style": "noto"})
    task = Task([pair], keeps=["object:cat", "dog in noto style"])
    assert asks_for("x", {"object": "cat", "style": "noto"}, pair)
    assert asks_for("a noto style picture of a cat", {}, pair)
    assert not asks_for("a dog in noto style", {"object": "dog", "style": "noto"}, pair)
    assert task.seen_in({"object": "cat", "style": "noto"})
    assert not task.seen_in({"object": "cat", "style": "fluent"})
