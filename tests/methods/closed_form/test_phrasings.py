"""What a task tells every closed form, whichever it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from erase import registry
from erase.errors import BadOption
from erase.methods.closed_form.phrasings import MOST, tell
from erase.methods.esd import ESD
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Model, open_model
from erase.run.options import method_for, method_with
from erase.task import Keep, Target, Task
from tests.methods.trained import FEW, STYLE

EMOJI = open_model("emoji")
METHODS = [
    name
    for name in registry.known("methods")
    if "phrasings" in {field.name for field in fields(registry.load("methods", name))}  # type: ignore[arg-type]
    and not issubclass(registry.load("methods", name), Trained)  # type: ignore[arg-type]
]
MONET = Target("Vincent van Gogh", "style", anchor="Edgar Degas", synonyms=("Van Gogh",))


def prompts(task: Task, **options: Any) -> list[str]:
    return [prompt for pair in tell(EMOJI, task, **options).pairs for prompt in pair]


def test_all_that_learn_from_phrasings_without_images_are_told_the_same_by_default() -> None:
    assert METHODS == ["casteer", "dp", "mace", "rece", "redirect", "refact", "speed", "text_lora", "time", "uce"]
    assert {method_with(name, {}).phrasings for name in METHODS} == {"shared"}  # type: ignore[attr-defined]


def test_keeps_of_two_words_are_phrased_as_often_as_those_of_one() -> None:
    one, two = (
        tell(EMOJI, Task((MONET,), keeps)).kept for keeps in (("Monet", "Picasso"), ("Claude Monet", "Pablo Picasso"))
    )
    assert len(one) == len(two) == 12
    assert "painting by Claude Monet" in two
    assert "art by Hélène Béland" in tell(EMOJI, Task((MONET,), ("Hélène Béland",))).kept


def test_every_synonym_is_asked_in_every_phrasing_and_becomes_the_anchor() -> None:
    told = tell(EMOJI, Task((MONET,), ("object:hot dog", "prompt:a cat in Edgar Degas style")))
    assert ("painting by Vincent van Gogh", "painting by Edgar Degas") in told.pairs
    assert ("a cat in Van Gogh style", "a cat in Edgar Degas style") in told.pairs
    assert ("a hot dog in Van Gogh style", "a hot dog in Edgar Degas style") in told.pairs
    assert len(told.pairs) == 2 * (1 + 5 + 1 + 1)


@pytest.mark.parametrize(
    ("task", "nonsense"),
    [
        (Task((Target("cat", "object", "dog"),), ("apple", "car")), "apple style"),
        (Task((Target("Van Gogh", "style", "Picasso"),), ("Claude Monet",)), "Claude"),
        (Task((Target("Van Gogh", "style", "Picasso"),), ("Pablo Picasso", "a cat in Pablo Picasso style")), "Pablo"),
        (Task((Target("Van Gogh", "style", "Picasso"),), ("Monet",)), "Monet"),
        (Task((Target("a cat", "object", "a dog"),), ("style:Monet",)), "a a"),
        (Task((Target("Obama", "identity", "a man"),), ("style:Monet",)), "a Obama"),
    ],
)
def test_kinds_are_not_mixed_in_the_targets_phrasings(task: Task, nonsense: str) -> None:
    assert not [prompt for prompt in prompts(task) if nonsense in prompt]
    assert len(prompts(task)) >= 12


def test_a_thing_stands_in_a_kept_style_and_a_style_beside_a_kept_thing() -> None:
    assert "a cat in Claude Monet style" in prompts(Task((Target("cat", "object", "dog"),), ("style:Claude Monet",)))
    assert "a hot dog in blob style" in prompts(Task((Target("noto", "style", "blob"),), ("object:hot dog",)))


def test_keeps_come_in_phrasings_of_their_own_kind() -> None:
    style = Target("noto", "style", "blob", prompts=("a cat in {} style",))
    kept = tell(EMOJI, Task((style,), ("mono", Keep("tree", "object"), Keep("Frida Kahlo", "identity")))).kept
    assert {"a cat in mono style", "art by mono", "photo of tree", "portrait of Frida Kahlo"} <= set(kept)
    assert not {"a cat in tree style", "art by tree", "photo of mono"} & set(kept)


def test_no_kept_text_names_a_target() -> None:
    two = (Target("cat", "object", "dog", prompts=("a {} and a bomb",)), Target("bomb", "object", "rose"))
    assert not [text for text in tell(EMOJI, Task(two, ("tree",))).kept if "bomb" in text]


def test_a_pair_of_a_thing_and_a_style_is_asked_for_as_a_thing() -> None:
    pair = Target("cat in noto style", "style", "cat in fluent style", pair={"object": "cat", "style": "noto"})
    task = Task((pair,), ("mono", "object:dog", "a dog in noto style", "a cat in mono style"))
    told = tell(EMOJI, task)
    assert ("picture of cat in noto style", "picture of cat in fluent style") in told.pairs
    assert not [old for old, _ in told.pairs if "by" in old or old.count("style") > 1]
    moved = method_with("uce", {})(EMOJI, task).text_maps[0].matrix()
    for text, least, most in (("a cat in noto style", 0.0, 0.5), ("a dog in noto style", 0.0, 0.5)):
        old, new = EMOJI.encode([text, text.replace("noto", "fluent")]).states.double()
        far = float((old @ moved.T - (new if "cat" in text else old)).norm() / (new - old).norm())
        assert least <= far < most, text


@pytest.mark.parametrize("method", METHODS)
def test_a_blank_anchor_gives_the_edit_of_the_empty_one(method: str, model: Model) -> None:
    options = {"steps": 2} if method == "refact" else {}
    edits = [
        method_with(method, options)(model, Task((Target("noto", "style", anchor=anchor),), ("a dog", "car")))
        for anchor in ("", " ", " \t")
    ]
    assert len({edit.content for edit in edits}) == 1
    assert edits[0].touches


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("redirect", "text_lora")])
def test_the_papers_preset_is_told_the_tasks_own_prompts_alone(method: str) -> None:
    made: Any = method_for(method, {"preset": "paper"}, model=EMOJI, task=Task((MONET,)))
    assert made.phrasings == "own"
    task = Task((MONET,), ("Claude Monet", "object:hot dog"))
    told = tell(EMOJI, task, phrasings=made.phrasings)
    assert told.pairs == [("Vincent van Gogh", "Edgar Degas"), ("Van Gogh", "Edgar Degas")]
    assert told.kept == ("Claude Monet", "hot dog")


def test_the_papers_preset_of_rece_keeps_what_belongs_to_the_kind() -> None:
    made: Any = method_for("rece", {"preset": "paper", "lamb": 0.3}, model=EMOJI, task=Task((MONET,)))
    assert (made.rounds, made.together, made.tokens, made.lamb) == (1, False, "whole", 0.3)


def test_of_many_targets_and_keeps_each_is_told_in_fewer_phrasings() -> None:
    for count in (1, 40, 200, 1000):
        task = Task([Target(f"old {n}", "object", "new") for n in range(count)], [f"keep {n}" for n in range(count)])
        told = tell(EMOJI, task)
        assert count <= len(told.pairs) <= count + MOST
        assert count <= len(told.kept) <= count + MOST
    assert len(told.pairs) == len(told.kept) == 1000


def test_the_former_options_are_read_in_the_new_words(caplog: pytest.LogCaptureFixture) -> None:
    made: list[Any] = [
        method_with(name, {key: value})
        for name, key, value in (("uce", "expand", False), ("redirect", "beside", 24), ("redirect", "expand", False))
    ]
    assert [one.phrasings for one in made] == ["own", "shared", "own"]
    assert len(caplog.messages) == 3
    assert 'option expand of uce is now "phrasings"; read as phrasings: own.' in caplog.messages[0]


def test_shared_phrasings_make_another_edit_than_own_ones(model: Model) -> None:
    task = Task((Target("noto", "style", anchor="blob"),), ("mono",))
    shared, own = (method_with("uce", {"phrasings": which})(model, task) for which in ("shared", "own"))
    assert not torch.equal(shared.text_maps[0].matrix(), own.text_maps[0].matrix())


def test_shared_phrasings_are_those_that_closed_forms_are_told(model: Model) -> None:
    task = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),))
    own, shared = (Session.start(ESD(**FEW, phrasings=one), model, task, work=None) for one in ("own", "shared"))
    assert own.asked == [("a cat in noto style", "a cat in blob style")]
    assert shared.asked == tell(model, task).pairs
    assert ("painting by noto", "painting by blob") in shared.asked


def test_a_bank_of_shared_phrasings_has_as_many_trajectories_as_asked_and_no_more(model: Model) -> None:
    session = Session.start(ESD(**FEW, phrasings="shared"), model, STYLE, work=None)
    plan = session.plan((text, ()) for text, _ in session.asked)
    assert len(plan.trajectories) == FEW["trajectories"] < len(session.asked)


def test_phrasings_of_another_name_are_refused() -> None:
    with pytest.raises(BadOption, match=r'phrasings is "common"; expected one of shared, own'):
        ESD(phrasings="common")  # type: ignore[arg-type]


def test_in_contexts_both_sides_and_keeps_have_the_same_random_words_in_front() -> None:
    task = Task((replace(MONET, prompts=("a cat in {} style",)),), ("Claude Monet",))
    plain, told = tell(EMOJI, task), tell(EMOJI, task, contexts=20)
    more = [pair for pair in told.pairs if pair not in plain.pairs]
    assert len(more) == 20
    for old, new in more:
        prefix = " ".join(old.split()[:3])
        assert new.startswith(prefix)
        assert (old.removeprefix(f"{prefix} "), new.removeprefix(f"{prefix} ")) in plain.pairs
        assert task.named_by(prefix) is None
    kept = [text for text in told.kept if text not in plain.kept]
    assert len(kept) == 20
    assert {" ".join(text.split()[3:]) for text in kept} <= set(plain.kept)
    assert told == tell(EMOJI, task, contexts=20)
