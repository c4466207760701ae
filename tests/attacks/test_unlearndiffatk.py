"""UnlearnDiffAtk: words under which the edited network denoises the concept, found within a budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.unlearndiffatk import UnlearnDiffAtk
from erase.errors import BadOption
from tests.attacks.setting import attacked, hidden

FAST = UnlearnDiffAtk(levels=2, flips=2, tried=3, among=16)


def test_what_is_found_is_the_prompt_with_words_in_front(tmp_path: Path) -> None:
    result = attacked(FAST, tmp_path, budget=80)
    assert result.attempts
    for one in result.attempts:
        assert one.text.endswith(one.prompt)


def test_a_model_that_only_hides_the_concept_is_attacked_through_its_guard(tmp_path: Path) -> None:
    result = attacked(FAST, tmp_path, budget=80, edit=hidden())
    assert result.success.n == len(result.attempts)


def test_options_out_of_range_are_told_by_name() -> None:
    with pytest.raises(BadOption, match="flips is 0; expected 1 or more"):
        UnlearnDiffAtk(flips=0)
