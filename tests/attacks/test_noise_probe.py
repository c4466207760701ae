"""The noise probe: its settings are tried in order, as far as the budget reaches."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.noise_probe import NoiseProbe
from erase.attacks.seed_search import SeedSearch
from erase.errors import BadOption
from tests.attacks.setting import attacked


def test_a_budget_of_two_images_tries_two_settings(tmp_path: Path) -> None:
    result = attacked(NoiseProbe(), tmp_path, budget=16)
    assert result.attempts
    assert all(one.images == 2 or one.searched for one in result.attempts)
    assert isinstance(NoiseProbe().control, SeedSearch)


def test_negative_noise_is_refused() -> None:
    with pytest.raises(BadOption, match="expected 0 or more"):
        NoiseProbe(etas=(-1.0,))
