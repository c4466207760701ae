"""Relearning: training further, which leaves the edited model as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.relearn import Relearn
from erase.errors import BadOption
from tests.attacks.setting import attacked


def test_training_on_the_targets_pictures_brings_an_erased_style_back(tmp_path: Path) -> None:
    result = attacked(Relearn(rank=0, steps=60, rate=5e-4, pictures="target"), tmp_path, budget=1000)
    assert result.success.value > result.before.value
    assert all(one.evaluations > 60 * 4 * 3 / 3 for one in result.attempts)


def test_a_lora_on_benign_pictures_changes_weights_and_is_made_once(tmp_path: Path) -> None:
    first = attacked(Relearn(rank=2, steps=2, rate=1e-3), tmp_path, budget=100)
    kept = list(tmp_path.glob("relearned-*.safetensors"))
    assert len(kept) == 1
    (tmp_path / "attempts.jsonl").unlink()
    again = attacked(Relearn(rank=2, steps=2, rate=1e-3), tmp_path, budget=100)
    assert list(tmp_path.glob("relearned-*.safetensors")) == kept
    assert [one.success for one in again.attempts] == [one.success for one in first.attempts]


def test_a_budget_below_the_trainings_cost_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="raise it, or take fewer steps"):
        attacked(Relearn(steps=200), tmp_path, budget=60)


@pytest.mark.parametrize("options", [{"steps": 0}, {"rank": -1}, {"rate": 0.0}, {"batch": 0}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(BadOption, match="relearn"):
        Relearn(**options)  # type: ignore[arg-type]
