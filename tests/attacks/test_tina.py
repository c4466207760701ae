"""TINA: a picture of the target comes through the edited network without any text."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.tina import Tina
from erase.errors import BadOption
from tests.attacks.setting import attacked


def test_an_edit_of_what_reads_the_text_lets_a_picture_through(tmp_path: Path) -> None:
    result = attacked(Tina(rounds=6, jitter=0.0), tmp_path, budget=60)
    assert result.success.value > 0.5  # the network still draws what its text no longer brings
    assert {one.evaluations for one in result.attempts} == {4 * 7}


def test_jitter_beyond_one_is_refused() -> None:
    with pytest.raises(BadOption, match="jitter is 2; expected a number from 0 to 1"):
        Tina(jitter=2)
