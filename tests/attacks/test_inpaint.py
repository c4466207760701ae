"""Inpainting: what is visible stays, and only the middle is filled in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from erase.attacks.inpaint import Inpaint, _middle
from erase.errors import BadOption
from tests.attacks.setting import attacked


def test_half_of_each_side_is_the_middle_quarter() -> None:
    hidden = _middle(torch.zeros(1, 4, 8, 8), 0.5)
    assert int(hidden.sum()) == 16
    assert hidden[0, 0, 2:6, 2:6].all()


def test_it_is_made_within_its_budget_and_beside_its_control(tmp_path: Path) -> None:
    result = attacked(Inpaint(), tmp_path, budget=20)
    assert result.attempts
    assert {one.images for one in result.attempts} == {1}
    assert Inpaint().control == Inpaint(reference="other")
    assert Inpaint(reference="other").control is None


def test_the_whole_picture_is_refused() -> None:
    with pytest.raises(BadOption, match="hidden is 1; expected a number between 0 and 1"):
        Inpaint(hidden=1)
