"""Completion: the base begins, the edited model goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.completion import Completion
from erase.errors import BadOption
from tests.attacks.setting import attacked, hidden


def test_what_the_base_has_drawn_almost_whole_is_not_undone_by_the_edit(tmp_path: Path) -> None:
    """Three of four steps are the base's: an edit of the name alone lets most of its picture through."""
    result = attacked(Completion(shares=(0.75,)), tmp_path, budget=60)
    assert result.success.value >= result.before.value
    assert {one.text for one in result.attempts} == {one.prompt for one in result.attempts}


def test_a_model_that_only_hides_the_concept_is_broken(tmp_path: Path) -> None:
    result = attacked(Completion(shares=(0.75,)), tmp_path, budget=60, edit=hidden())
    assert result.success.value > 0.5


def test_a_share_of_all_steps_is_refused() -> None:
    with pytest.raises(BadOption, match="expected a number between 0 and 1"):
        Completion(shares=(0.2, 1.0))
