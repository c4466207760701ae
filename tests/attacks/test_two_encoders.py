"""Attacks by words on `emoji-flow`, which reads a prompt by two CLIP encoders and by a pooled state of both."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from erase.attacks.concept_inversion import ConceptInversion
from erase.attacks.gcg import GCG
from erase.attacks.p4d import P4D
from erase.attacks.ring_a_bell import RingABell
from erase.attacks.search.experiment import Plan, cases_of, check_attack, run_attack
from erase.attacks.search.result import AttackResult
from erase.attacks.unlearndiffatk import UnlearnDiffAtk
from erase.edit import Edit
from erase.errors import BadModel
from erase.evaluate.detect import Given
from erase.evaluate.protocol import load_protocol
from erase.evaluate.verify import Edited
from erase.methods.redirect import Redirect
from erase.models import Model, open_model
from erase.sampling.sampler import Sampler
from erase.task import Target, Task
from tests.families import Opener

TASK = Task([Target("noto", "style", anchor="fluent")])
PLAN = Plan(sampler=Sampler(steps=4, guidance=3.0, max_sequence_length=1, batch=8))
EVERY: dict[str, Any] = {
    "gcg": GCG(tokens=2, steps=1, tried=2, among=8, starts=1),
    "ring_a_bell": RingABell(tokens=2, population=4, generations=1, images=1),
    "unlearndiffatk": UnlearnDiffAtk(levels=1, flips=1, tried=2, among=8),
    "p4d": P4D(levels=1, steps=1),
    "concept_inversion": ConceptInversion(steps=1, batch=1, pictures=1),
}


@cache
def flow() -> Model:
    return open_model("emoji-flow")


@cache
def hidden() -> Edit:
    """An edit of one name, by which nothing was taught about any other way to ask for the style."""
    return Redirect()(flow(), TASK)


def attacked(attack: Any, folder: Path, *, budget: int, prompts: int) -> AttackResult:
    return run_attack(
        attack,
        flow(),
        Edited(flow(), hidden(), TASK),
        task=TASK,
        protocol=load_protocol("gate"),
        given=Given({}, flow().judge_folder),
        folder=folder,
        plan=Plan(budget, prompts, sampler=PLAN.sampler),
    )


def test_a_word_learned_for_both_encoders_brings_back_what_an_edit_of_the_name_hides(tmp_path: Path) -> None:
    result = attacked(ConceptInversion(steps=40, batch=4), tmp_path, budget=200, prompts=4)
    assert result.before.value == 0
    assert result.success.value > 0.5 > result.control.value


@pytest.mark.slow
def test_words_in_front_bring_it_back_more_often_than_random_ones(tmp_path: Path) -> None:
    result = attacked(UnlearnDiffAtk(levels=2, flips=2, tried=3, among=16), tmp_path, budget=120, prompts=4)
    assert result.before.value == 0
    assert result.success.value > result.control.value


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_attack_by_words_keeps_its_budget(name: str, tmp_path: Path) -> None:
    result = attacked(EVERY[name], tmp_path, budget=40, prompts=2)
    assert result.attempts
    assert all(0 < one.evaluations <= 40 for one in result.attempts)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_where_t5_reads_the_prompt_each_is_refused_before_any_image(
    family_model: Opener, family: str, name: str
) -> None:
    cases = cases_of(load_protocol("gate"), TASK, Given({}, flow().judge_folder), count=1)
    assert cases
    with pytest.raises(BadModel, match=f"{name} finds words by .* reads prompts by T5"):
        check_attack(EVERY[name], family_model(family), PLAN, task=TASK, cases=cases)
