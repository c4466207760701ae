"""What attacks by gradient go down: 1 at what the target becomes, -1 at the target, as the base predicts them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.attacks.search.experiment import cases_of
from erase.attacks.search.objective import Aim, objective_of
from erase.attacks.search.victim import Side, Victim, without_target
from erase.evaluate.detect import Given, runner_of
from erase.methods.training.inversion import place
from tests.attacks.setting import SAMPLER, TASK, base, protocol


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    side, given = Side.load(base(), None, SAMPLER), Given({}, base().judge_folder)
    runner = runner_of(protocol(), TASK, cases_of(protocol(), TASK, given, count=2), given=given)
    return Victim(side, side, TASK, runner, Path(tmp_path_factory.mktemp("attack")))


def losses(victim: Victim, what: Aim) -> tuple[float, float]:
    """The losses of the plain prompt's own states and of those of what the target becomes."""
    (case,) = victim.runner.cases[:1]
    objective = objective_of(victim, [case], levels=3, what=what)
    found = []
    for text in (case.row.prompt, without_target(victim, case)):
        with torch.no_grad():
            given = victim.base.reader.read(place(victim.base.tokenizer, [text], [], count=0).ids)
            found.append(float(objective(given, torch.tensor([0]))))
    return found[0], found[1]


def test_the_direction_is_minus_one_at_the_target_and_one_at_what_it_becomes(victim: Victim) -> None:
    assert losses(victim, "direction") == pytest.approx((-1.0, 1.0), abs=1e-3)


def test_against_the_base_the_targets_own_prompt_has_no_loss(victim: Victim) -> None:
    own, other = losses(victim, "base")
    assert own == pytest.approx(0.0, abs=1e-6)
    assert other > 1e-5


def test_against_the_noise_even_the_base_has_a_loss(victim: Victim) -> None:
    own, other = losses(victim, "noise")
    assert 0 < own < other


def test_the_prompt_without_the_target_has_the_anchor_in_its_place(victim: Victim) -> None:
    (case,) = victim.runner.cases[:1]
    assert without_target(victim, case) == case.row.prompt.replace("noto", "fluent")
