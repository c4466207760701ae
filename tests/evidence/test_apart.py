"""Whether prompts are apart from those that an edit was made on."""

from __future__ import annotations

from dataclasses import asdict

from erase.edit import EditInfo
from erase.evidence.apart import compared, shared_by_text
from erase.models import Model
from erase.task import Target, Task

TASK = Task((Target("noto", "style", anchor="blob", prompts=("a cat in {} style",)),), keeps=("twemoji",))


def info(model: Model) -> EditInfo:
    return EditInfo("uce", {}, asdict(TASK), model.family, model.fingerprint)


def test_case_accents_and_punctuation_do_not_make_another_prompt() -> None:
    asked = ["A Cat, in Noto style!", "ein Café", "a dog in noto style"]
    assert shared_by_text(asked, ["a cat in noto style", "ein cafe"]) == asked[:2]


def test_the_prompts_of_an_edits_own_templates_are_shared(model: Model) -> None:
    told = compared(info(model), ["a cat in noto style", "a dog in noto style"], model)
    assert told["by_text"] == ["a cat in noto style"]
    assert "style of noto" in told["used"]  # a common phrasing, which closed forms are told


def test_texts_that_the_encoder_reads_alike_are_shared_by_state(model: Model) -> None:
    """Repeated spaces are one token sequence, though another text to a program that compares letters."""
    asked = ["a cat in noto  style", "a rose in noto style"]
    told = compared(info(model), asked, model)
    shared = {*told["by_text"], *(one[0] for one in told["by_state"])}
    assert asked[0] in shared
    assert asked[1] not in shared


def test_an_edit_of_others_that_does_not_say_is_not_known(model: Model) -> None:
    assert compared(EditInfo("weights", {}, {}, model.family, model.fingerprint), ["a cat"], model) == {}
