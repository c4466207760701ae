"""Selective Amnesia against its paper's equation, and what its options promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.sa import SA, fisher_information, sa_pull
from erase.models import Model
from erase.task import Target, Task
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions

SMALL = FEW | {"keep_batch": 2, "keep_trajectories": 2, "fisher": 3}
KEPT = Task(STYLE.targets, keeps=("a dog in blob style", "a fish"))


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_fisher_information_is_the_mean_square_of_gradients_taken_by_hand() -> None:
    weight, inputs, aims = double(3).requires_grad_(True), double(7, 3), double(7)
    unused = double(2).requires_grad_(True)
    losses = ((inputs[row] @ weight - aims[row]).square() for row in range(7))
    found = fisher_information({"used": weight, "unused": unused}, losses)
    expected = [0.0, 0.0, 0.0]
    for row in range(7):
        error = sum(float(inputs[row, i]) * float(weight.detach()[i]) for i in range(3)) - float(aims[row])
        expected = [sum_ + (2 * error * float(inputs[row, i])) ** 2 / 7 for i, sum_ in enumerate(expected)]
    assert found["used"].tolist() == pytest.approx(expected, rel=1e-12)
    assert not found["unused"].any()


def test_the_pull_is_the_papers_sum_over_weights() -> None:
    values, start, matter = ({"a": double(2, 3) + shift, "b": double(4) * (shift + 1)} for shift in (0.0, 1.0, 2.0))
    total = sum(
        float(f) * (float(v) - float(s)) ** 2
        for name in values
        for v, s, f in zip(values[name].flatten(), start[name].flatten(), matter[name].flatten(), strict=True)
    )
    assert sa_pull(values, start, matter).item() == pytest.approx(total, rel=1e-12)


def test_a_heavier_pull_leaves_the_weights_nearer_to_where_they_were(model: Model) -> None:
    def length(weight: float) -> float:
        edit = SA(**SMALL | {"steps": 20}, weight=weight)(model, KEPT)
        return float(sum(delta.square().sum() for delta in edit.deltas.values()))

    assert length(1e5) < 0.8 * length(0.0)


def test_the_target_is_taught_the_anchors_pictures(model: Model) -> None:
    edit = SA(**MANY | SMALL | {"steps": 60, "batch": 4}, weight=0.0)(model, KEPT)
    apart, before = (predictions(model, OLD, one) - predictions(model, NEW, one) for one in (edit, None))
    assert not torch.allclose(apart, before)


def test_without_replay_and_without_keeps_it_trains_too(model: Model) -> None:
    edits = [SA(**SMALL, replay=replay)(model, STYLE) for replay in (0.0, 1.0)]
    assert edits[0].content != edits[1].content


def test_several_targets_with_all_their_words_are_taught(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("car", "object", anchor="fish")))
    assert SA(**SMALL)(model, task).deltas


@pytest.mark.parametrize(
    ("options", "named"),
    [({"weight": -1.0}, "weight"), ({"fisher": 0}, "fisher"), ({"replay": -1.0}, "replay"), ({"layers": ""}, "layers")],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SA(**options)
