"""SDD against its paper's equation, and what its options promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from erase.context import RunContext
from erase.errors import BadOption
from erase.methods.sdd import SDD, sdd_loss
from erase.models import Model
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions, seen, square


def test_the_loss_is_the_papers_equation_and_pulls_one_side_alone() -> None:
    predicted, empty = seen(2)[0].requires_grad_(True), seen(3)[2].requires_grad_(True)
    loss = sdd_loss(predicted, empty)
    assert loss.item() == pytest.approx(square(predicted, empty), rel=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    assert empty.grad is None


@pytest.mark.slow
def test_the_concepts_prediction_becomes_that_for_the_empty_prompt(model: Model) -> None:
    edit = SDD(**MANY, decay=0.0)(model, STYLE)
    before = predictions(model, OLD) - predictions(model, "")
    after = predictions(model, OLD, edit) - predictions(model, "", edit)
    assert after.norm() < 0.5 * before.norm()


def test_a_slower_average_moves_less(model: Model) -> None:
    moved = [
        sum(float(delta.norm()) for delta in SDD(**FEW, decay=decay)(model, STYLE).deltas.values())
        for decay in (0.0, 0.5, 0.99)
    ]
    assert moved[0] > moved[1] > moved[2] > 0


def test_a_refreshed_bank_gives_another_edit_and_goes_on_after_a_kill(model: Model, tmp_path: Path) -> None:
    options = FEW | {"steps": 6}
    refreshed = SDD(**options, decay=0.5, refresh=2)
    whole = refreshed(model, STYLE)
    assert whole.content != SDD(**options, decay=0.5)(model, STYLE).content

    def kill(text: str, done: int, total: int, **words: str) -> None:
        if text == "training" and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refreshed(model, STYLE, work=RunContext(tmp_path, report=kill, seconds=0.0))
    assert refreshed(model, STYLE, work=RunContext(tmp_path)).content == whole.content


def test_an_anchored_target_becomes_what_its_anchors_prompt_is(model: Model) -> None:
    options = MANY | {"learning_rate": 1e-3, "decay": 0.9}
    edits = [SDD(**options, anchored=on)(model, STYLE) for on in (False, True)]
    plain, anchored = (float((predictions(model, OLD, edit) - predictions(model, NEW, edit)).norm()) for edit in edits)
    assert anchored < 0.8 * plain


@pytest.mark.parametrize(("options", "named"), [({"decay": 1.0}, "decay"), ({"refresh": -1}, "refresh")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SDD(**options)
