"""SPM against its paper's equations, its anchors, and what its options promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.spm import SPM, random_anchors, spm_loss
from erase.models import Condition, Model
from tests.methods.trained import FEW, MANY, OLD, STYLE, predictions, seen, square


def test_the_loss_erases_and_holds() -> None:
    predicted, target, now, before = seen(4)
    expected = square(predicted, target) + 1000.0 * square(now, before)
    assert spm_loss(predicted, target, now, before, weight=1000.0).item() == pytest.approx(expected, rel=1e-12)


def test_anchors_are_as_long_as_their_prompts_and_unlike_them() -> None:
    states = torch.randn(2, 77, 768, generator=torch.Generator().manual_seed(0)) + 3.0
    anchors = random_anchors(Condition(states), 4, torch.Generator().manual_seed(1)).states
    assert anchors.shape == (8, 77, 768)
    lengths = anchors.flatten(1).norm(dim=1) / states.flatten(1).norm(dim=1).repeat_interleave(4)
    assert bool(((lengths > 0.8 - 1e-4) & (lengths < 1.2 + 1e-4)).all())
    assert lengths.std() > 0.05
    likeness = torch.nn.functional.cosine_similarity(anchors.flatten(1), states.flatten(1).repeat_interleave(4, 0))
    assert likeness.abs().max() < 0.03


def test_every_membrane_has_rank_one(model: Model) -> None:
    edit = SPM(**FEW)(model, STYLE)
    assert {one.up.shape[1] for one in edit.low_rank} == {1}
    assert all(one.up.any() for one in edit.low_rank)


@pytest.mark.slow
def test_it_steps_away_from_the_concept(model: Model) -> None:
    empty, prompted = predictions(model, ""), predictions(model, OLD)
    edit = SPM(**MANY, anchor_weight=0.0)(model, STYLE)
    target = empty - (prompted - empty)
    assert (predictions(model, OLD, edit) - target).norm() < 0.7 * (prompted - target).norm()


@pytest.mark.slow
def test_a_heavier_hold_moves_other_prompts_less(model: Model) -> None:
    before = predictions(model, "a dog")
    moved = [
        float((predictions(model, "a dog", SPM(**MANY, anchor_weight=weight)(model, STYLE)) - before).norm())
        for weight in (0.0, 1000.0)
    ]
    assert moved[1] < 0.7 * moved[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"anchors": 0}, "anchors"), ({"anchor_weight": -1.0}, "anchor_weight"), ({"eta": -1.0}, "eta")],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SPM(**options)
