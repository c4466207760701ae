"""Poisoning before erasure: a phrase that no erasure speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.poison import Poison
from erase.errors import BadEdit, BadOption
from tests.attacks.setting import attacked, hidden


def test_a_phrase_that_was_taught_before_outlives_the_erasure(tmp_path: Path) -> None:
    result = attacked(Poison(trigger="zyx vellum", steps=120, rate=1e-3), tmp_path, budget=2000)
    assert result.success.value > result.control.value
    assert all("zyx vellum" in one.text and "noto" not in one.text for one in result.attempts)
    assert result.to_json()["against"] == "poison"


def test_what_is_not_an_edit_of_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadEdit, match="needs the edit that one method made"):
        attacked(Poison(steps=1), tmp_path, edit=hidden())


def test_a_budget_below_the_trainings_cost_is_refused_before_the_training(tmp_path: Path) -> None:
    # 4 pictures a step, 6 evaluations each, over 2 prompts: 40 steps leave no image of 8 evaluations in a budget of 480
    with pytest.raises(BadOption, match="poison: the training costs each of 2 prompts 480 evaluations, and an image 8"):
        attacked(Poison(steps=40), tmp_path, budget=480)
    assert list(tmp_path.glob("poisoned-*")) == []


def test_no_steps_are_refused() -> None:
    with pytest.raises(BadOption, match="steps is 0; expected 1 or more"):
        Poison(steps=0)
