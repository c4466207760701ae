"""Merging with another fine-tune: an average takes the edit away, a difference that is added does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.merge_probe import MergeProbe
from erase.errors import BadOption, EraseError
from tests.attacks.setting import attacked


def test_a_merge_that_is_all_of_the_base_shows_the_target(tmp_path: Path) -> None:
    result = attacked(MergeProbe(shares=(1.0,), other="emoji"), tmp_path)
    assert result.success.value == 1.0
    assert result.before.value < 1.0


def test_the_bases_difference_to_itself_takes_nothing_away(tmp_path: Path) -> None:
    result = attacked(MergeProbe(shares=(1.0,), how="add_difference", other="emoji"), tmp_path)
    assert result.success.value == result.before.value


def test_without_another_model_one_is_made_of_the_base(tmp_path: Path) -> None:
    result = attacked(MergeProbe(shares=(0.2, 1.0), steps=2), tmp_path)
    assert result.success.value == 1.0
    assert max(one.images for one in result.attempts) == 2


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EraseError, match="another fine-tune of the same base"):
        attacked(MergeProbe(other="emoji-flow"), tmp_path)


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(BadOption, match="expected more than 0, at most 1"):
        MergeProbe(shares=(1.5,))
