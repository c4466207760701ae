"""Edits in a row: of one closed form their sum is that of all targets at once, and everything else is held."""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from erase.context import RunContext
from erase.edit import Edit
from erase.errors import ModelMismatch
from erase.methods.closed_form.joined import beside
from erase.methods.rece import RECE
from erase.methods.redirect import Redirect
from erase.methods.refact import ReFACT
from erase.methods.uce import UCE
from erase.models import Model, open_model
from erase.run.options import make_edit, method_with
from erase.task import Target, Task
from tests.recipes import command
from tests.tiny import tiny_stable_diffusion

Capture = pytest.CaptureFixture[str]
NAMES = ("Van Gogh", "José", "Rodin", "Hokusai")
KEEPS = ["Claude Monet", "object:cat"]


def task_of(*names: str, anchor: str = "painting") -> Task:
    return Task([Target(name, anchor=anchor, prompts=("{}", "cat by {}")) for name in names], KEEPS)


def in_a_row(method: object, model: Model, names: Sequence[str] = NAMES) -> list[Edit]:
    made: list[Edit] = []
    for name in names:
        made.append(make_edit(method, model, task_of(name), work=RunContext(), earlier=made))  # type: ignore[arg-type]
    return made


def furthest(model: Model, one: Edit, other: Edit) -> float:
    """The largest difference of what two edits make of the weights, relative to what the second one changes."""
    assert set(one.touches) == set(other.touches)
    found = []
    for name in other.touches:
        weight = model.weight(name)
        found.append(
            float((one.change(name, weight) - other.change(name, weight)).norm() / other.change(name, weight).norm())
        )
    return max(found)


@pytest.mark.parametrize("method", [Redirect(), UCE(), UCE(technique="tensor"), RECE(), ReFACT(steps=5)])
def test_the_sum_of_edits_in_a_row_is_the_edit_of_all_at_once(model: Model, method: object) -> None:
    together = functools.reduce(operator.add, in_a_row(method, model))
    once = make_edit(method, model, task_of(*NAMES), work=RunContext())  # type: ignore[arg-type]
    alone = [make_edit(method, model, task_of(name), work=RunContext()) for name in NAMES]  # type: ignore[arg-type]
    assert furthest(model, together, once) < 1e-4
    assert furthest(model, functools.reduce(operator.add, alone), once) > 0.05


def test_an_edit_in_a_row_has_one_map_and_says_what_is_its_own(model: Model) -> None:
    made = in_a_row(Redirect(), model)
    assert [len(edit.text_maps) for edit in made] == [1] * len(made)
    assert made[-1].rank <= model.sites()[0].width
    assert [target["name"] for target in made[-1].info.task["targets"]] == [NAMES[-1]]
    assert made[-1].info.record["joined"] == [edit.content for edit in made[:-1]]
    assert made[-1].info.effect is not None
    assert made[-1].info.effect.moved == pytest.approx(1.0, abs=0.3)


def test_a_sum_counts_by_its_parts_and_an_edit_read_from_a_file_as_itself(model: Model, tmp_path: Path) -> None:
    made = in_a_row(UCE(), model)
    (made[0] + made[1]).save(tmp_path / "both.safetensors")
    both = Edit.load(tmp_path / "both.safetensors")
    third = make_edit(UCE(), model, task_of(NAMES[2]), work=RunContext(), earlier=[both])
    assert furthest(model, third, made[2]) < 1e-4


def others(model: Model) -> dict[str, Edit]:
    first = UCE()(model, task_of(NAMES[0]))
    thing = Task([Target("green car", "object", anchor="bus")])
    return {
        "another method": Redirect()(model, task_of(NAMES[0])),
        "other options": UCE(lamb=0.25)(model, task_of(NAMES[0])),
        "half of it": first.scaled(0.5),
        "half of a sum": (first + UCE()(model, task_of(NAMES[1]))).scaled(0.5),
        "a sum with another method": first + Redirect()(model, task_of(NAMES[1])),
        "targets of another domain": UCE()(model, thing),
        "acts while sampling": method_with("sld", {})(model, task_of(NAMES[0])),
    }


def test_all_others_are_held_and_not_solved_for(model: Model) -> None:
    for what, edit in others(model).items():
        near = beside(UCE(), model, task_of(NAMES[3]), earlier=[edit])
        assert near.joined == (), what
        assert near.whole.names == (NAMES[3],), what
        assert {"cat by Van Gogh", "green car"} & set(near.own.prompts), what


def test_a_trained_method_is_never_trained_again_for_earlier_targets(model: Model) -> None:
    lora = method_with("lora", {"steps": 1})
    earlier = dataclasses.replace(UCE()(model, task_of(NAMES[0])).info, method="lora")
    options = dataclasses.asdict(lora)  # type: ignore[call-overload]
    edit = Edit(dataclasses.replace(earlier, options=options))
    assert beside(lora, model, task_of(NAMES[3]), earlier=[edit]).joined == ()


def test_a_target_that_is_erased_again_becomes_what_the_later_edit_says(model: Model) -> None:
    first = UCE()(model, task_of(NAMES[0]))
    again = make_edit(UCE(), model, task_of("van gogh", anchor="drawing"), work=RunContext(), earlier=[first])
    assert furthest(model, first + again, UCE()(model, task_of("van gogh", anchor="drawing"))) < 1e-4


def test_a_keep_that_is_a_target_of_another_edit_is_left_out_and_told(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    first = UCE()(model, Task([Target(NAMES[0], anchor="painting")], [NAMES[1]]))
    task = Task([Target(NAMES[1], anchor="painting")], [NAMES[0], "Claude Monet"])
    with caplog.at_level(logging.WARNING):
        near = beside(UCE(), model, task, earlier=[first])
    assert [keep.name for keep in near.whole.keeps] == ["Claude Monet"]
    assert near.whole.names == (NAMES[0], NAMES[1])
    assert caplog.messages == ['"Van Gogh" is to stay, but an earlier edit erased "Van Gogh": it stays erased.']


def test_an_edit_of_another_base_is_refused(model: Model, tmp_path: Path) -> None:
    other = open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))
    with pytest.raises(ModelMismatch, match="made for the base model"):
        beside(UCE(), model, task_of(NAMES[1]), earlier=[UCE()(other, task_of(NAMES[0]))])


def test_on_the_command_line_two_edits_in_a_row_are_both_at_once(capsys: Capture, model: Model, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in ("first", "second", "once", "both")]
    shared = ["edit", "-m", model.path, "--method", "uce", "-k", "Claude Monet"]
    one, other = ["-t", "Van Gogh", "-a", "painting"], ["-t", "José", "-a", "painting"]
    command(capsys, *shared, *one, "-o", files[0])
    plan = command(capsys, *shared, *other, "--after", files[0], "-o", files[1], "--dry-run").out
    assert "target    José → painting" in plan
    assert "together  with 1 target of earlier edits" in plan
    assert "target    Van Gogh" not in plan
    assert command(capsys, *shared, *other, "--after", files[0], "-o", files[1]).code == 0
    command(capsys, "combine", *files[:2], "-o", files[3])
    command(capsys, *shared, *one[:2], *other, "-o", files[2])
    assert furthest(model, Edit.load(files[3]), Edit.load(files[2])) < 1e-4


def test_the_library_takes_earlier_edits(model: Model) -> None:
    import erase

    first = erase.edit(model, task_of(NAMES[0]), method="uce")
    second = erase.edit(model, task_of(NAMES[1]), method="uce", after=[first])
    assert furthest(model, first + second, UCE()(model, task_of(*NAMES[:2]))) < 1e-4
    assert torch.is_tensor(second.text_maps[0].up)
