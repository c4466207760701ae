"""Concept inversion: a learned word asks an edited model for what its name no longer brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.concept_inversion import ConceptInversion
from erase.errors import BadOption
from tests.attacks.setting import attacked


def test_the_learned_word_is_kept_and_its_cost_is_shared_by_the_prompts(tmp_path: Path) -> None:
    attack = ConceptInversion(steps=4, batch=2, pictures=2)
    result = attacked(attack, tmp_path, budget=40)
    count = len(result.attempts)
    assert count
    assert {one.evaluations for one in result.attempts} == {-(-4 * 2 * 3 // count)}
    kept = sorted(tmp_path.glob("inversion-*.safetensors"))
    assert len(kept) == 2  # the target's and the control's
    assert attack.control == ConceptInversion(steps=4, batch=2, pictures=2, reference="other")
    assert ConceptInversion(reference="other").control is None


def test_a_budget_of_less_than_one_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="is less than one step of batch 512"):
        attacked(ConceptInversion(batch=512), tmp_path, budget=40)
