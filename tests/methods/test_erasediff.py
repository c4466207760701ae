"""EraseDiff against its equations, and what its options promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from erase.errors import BadOption
from erase.methods.erasediff import EraseDiff, barrier, descended
from erase.models import Model
from erase.task import Target, Task
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions

SMALL = FEW | {"keep_batch": 2, "keep_trajectories": 2}
KEPT = Task(STYLE.targets, keeps=("a dog in blob style", "a fish"))


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_lambda_is_the_barriers_number_by_number_and_never_negative() -> None:
    stay, go = [double(3), double(2, 2)], [double(4)[:3], double(2, 2) + 1]
    flat = [torch.cat([one.flatten() for one in side]).tolist() for side in (stay, go)]
    along, size = (sum(x * y for x, y in zip(one, flat[1], strict=True)) for one in flat)
    for left in (-1.0, 0.0, 0.5, 20.0):
        expected = max((2.0 * max(left, 0.0) - along) / size, 0.0)
        assert barrier(stay, go, left=torch.tensor(left).double(), eta=2.0).item() == pytest.approx(expected, rel=1e-12)
    assert barrier([-one for one in go], go, left=torch.tensor(0.0), eta=1.0).item() == pytest.approx(1.0)
    assert barrier(stay, [torch.zeros_like(one) for one in go], left=torch.tensor(1.0), eta=1.0).item() == 0


def test_the_least_lambda_keeps_the_step_from_undoing_what_is_forgotten() -> None:
    go = [double(5)]
    stay = [-3 * go[0] + 0.1 * double(5).flip(0)]
    weight = barrier(stay, go, left=torch.tensor(0.0), eta=1.0)
    assert weight > 0
    assert float(((stay[0] + weight * go[0]) * go[0]).sum()) == pytest.approx(0.0, abs=1e-12)


def test_descents_are_plain_ones_and_leave_the_weights_where_they_were() -> None:
    weight = double(4).requires_grad_(True)
    unused = double(2).requires_grad_(True)
    before = weight.detach().clone()
    found = descended(lambda: weight.square().sum(), {"w": weight, "u": unused}, count=3, rate=0.1)
    assert found.item() == pytest.approx(float((before * 0.8**3).square().sum()), rel=1e-12)
    assert torch.equal(weight.detach(), before)


def test_the_guarded_loss_has_the_gradient_that_the_equations_name() -> None:
    weight = double(3).requires_grad_(True)
    aim, held = double(4)[:3], double(5)[:3]
    method = EraseDiff(eta=0.7, inner_steps=2, inner_rate=0.01)

    def forgetting() -> Tensor:
        return (weight - aim).square().sum()

    total = method._guarded((weight - held).square().sum(), forgetting, {"w": weight})
    total.backward()  # type: ignore[no-untyped-call]
    value = weight.detach()
    stay, go = 2 * (value - held), 2 * (value - aim)
    after = (value - aim) * (1 - 0.02) ** 2
    left = ((value - aim).square().sum() - after.square().sum()) / 0.02
    weight_of = max(float((0.7 * left - stay @ go) / (go @ go)), 0.0)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, stay + weight_of * go, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"control": "fixed", "lamb": 100.0}, {"control": "fixed", "lamb": 0.0}),
        ({"control": "barrier", "eta": 100.0}, {"control": "barrier", "eta": 0.0}),
    ],
)
def test_the_heavier_it_weighs_the_more_alike_target_and_anchor_become(
    model: Model, more: dict[str, Any], less: dict[str, Any]
) -> None:
    options = MANY | SMALL | {"steps": 30, "learning_rate": 1e-3, "layers": "x-strict"}

    def apart(chosen: dict[str, Any]) -> float:
        edit = EraseDiff(**options | chosen)(model, KEPT)
        return float((predictions(model, OLD, edit) - predictions(model, NEW, edit)).norm())

    assert apart(more) < 0.97 * apart(less)


def test_several_targets_with_all_their_words_are_taught(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("car", "object", anchor="fish")))
    assert EraseDiff(**SMALL)(model, task).deltas


@pytest.mark.parametrize(
    "options", [{"eta": -1.0}, {"lamb": -1.0}, {"inner_rate": 0.0}, {"inner_steps": 0}, {"control": "free"}]
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        EraseDiff(**options)
