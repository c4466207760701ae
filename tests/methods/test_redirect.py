"""Redirect: its minimum against an independent derivation, and what it promises of targets, keeps and fixed states."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadOption
from erase.methods._ridge import gram, matrix
from erase.methods.redirect import Redirect, beside, largest_lamb, main_directions, redirect
from erase.models import Model
from erase.task import Target, Task
from tests.methods.formulas import WIDTH, states

EYE = torch.eye(WIDTH, dtype=torch.float64)
TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("cat", "dog", "twemoji"))


def penalised(
    old: torch.Tensor, new: torch.Tensor, kept: torch.Tensor, *, fixed: torch.Tensor, lamb: float
) -> torch.Tensor:
    """M - I from the normal equations D (O O^T + lamb H + m C C^T) = (N - O) O^T with an all but infinite m."""
    system = gram(old) + lamb * kept + 1e7 * gram(fixed)
    return torch.linalg.solve(system, ((new - old).T @ old).T).T


def test_it_is_the_minimum_for_the_lamb_that_it_finds() -> None:
    old, new, fixed = states(3, 1), states(3, 2), states(4, 3)
    kept = gram(states(40, 4)) / 40
    up, down = redirect(old, new, kept, fixed=fixed, floor=0.01, reach=0.9)
    H = kept + 0.01 * kept.trace() / WIDTH * EYE
    candidates = [penalised(old, new, H, fixed=fixed, lamb=lamb) for lamb in torch.logspace(-3, 3, 241).tolist()]
    assert min(float((up @ down - other).norm()) for other in candidates) < 0.03 * float((up @ down).norm())


@pytest.mark.parametrize("reach", [0.5, 0.9, 0.999])
def test_targets_go_exactly_the_asked_share_of_the_way(reach: float) -> None:
    old, new, kept = states(3, 1), states(3, 2), gram(states(40, 4)) / 40
    up, down = redirect(old, new, kept, fixed=states(4, 3), floor=0.01, reach=reach)
    left = (old @ (up @ down).T - (new - old)).square().sum() / (new - old).square().sum()
    assert abs(float(left) - (1 - reach)) < 1e-6


def test_fixed_states_do_not_move_at_all() -> None:
    fixed = states(5, 3)
    moved = matrix(redirect(states(3, 1), states(3, 2), EYE, fixed=fixed, floor=0.01, reach=0.95))
    assert (fixed @ moved.T - fixed).abs().max() < 1e-12
    assert (states(1, 9) @ moved.T - states(1, 9)).abs().max() > 1e-2


def test_no_other_map_of_the_same_reach_moves_the_kept_states_less() -> None:
    old, new, keeps, fixed = states(3, 1), states(3, 2), states(40, 4), states(4, 3)
    kept = gram(keeps) / 40
    up, down = redirect(old, new, kept, fixed=fixed, floor=1e-6, reach=0.9)
    plain_up, plain_down = redirect(old, new, EYE, fixed=fixed, floor=1e-6, reach=0.9)
    assert (keeps @ (up @ down).T).norm() < 0.9 * (keeps @ (plain_up @ plain_down).T).norm()


def test_more_pairs_than_the_width_are_met_as_far_as_one_map_can() -> None:
    old, new = states(60, 1), states(60, 2)
    up, down = redirect(old, new, EYE, fixed=states(0, 3), floor=0.01, reach=0.9999)
    best = torch.linalg.lstsq(old, new - old).solution.T
    assert up.shape[1] <= WIDTH
    assert float((up @ down - best).norm()) < 0.05 * float(best.norm())


def test_targets_within_what_is_held_are_an_error() -> None:
    fixed = states(4, 3)
    with pytest.raises(BadOption, match="lower hold"):
        redirect(fixed[:2], states(2, 2), EYE, fixed=fixed, floor=0.01, reach=0.95)


def test_the_largest_lamb_meets_its_own_equation() -> None:
    sizes, ways = torch.tensor([3.0, 1.0, 0.2]).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    lamb = largest_lamb(sizes, ways, reach=0.8)
    left = sum(float(way) * (lamb / (float(size) ** 2 + lamb)) ** 2 for size, way in zip(sizes, ways, strict=True))
    assert abs(left - 0.2 * 3.5) < 1e-9


def test_main_directions_are_the_fewest_that_hold_their_share() -> None:
    moment = torch.diag(torch.tensor([1.0, 6.0, 3.0])).double()
    assert main_directions(moment, 0.0).shape == (3, 0)
    assert main_directions(moment, 0.6).abs().tolist() == [[0.0], [1.0], [0.0]]
    assert main_directions(moment, 0.9).shape == (3, 2)
    assert main_directions(moment, 1.0).shape == (3, 3)


def test_small_differences_are_not_blown_up_to_reach_more() -> None:
    sizes, ways = torch.tensor([1.0, 1e-8]).double(), torch.tensor([1.0, 1.0]).double()
    assert abs(largest_lamb(sizes, ways, reach=0.9) - 1e-6) < 1e-12


def test_empty_prompt_stays_and_a_target_becomes_its_anchor_in_a_model(model: Model) -> None:
    moved = Redirect(hold=0.2)(model, TASK).text_maps[0].matrix()
    old, new, empty = model.encode(["noto", "blob", ""]).states.double()
    assert (empty[0] @ moved.T - empty[0]).abs().max() < 1e-4
    assert (empty @ moved.T - empty).norm() < 0.1 * empty.norm()
    assert (old @ moved.T - new).norm() < 0.75 * (old - new).norm()


def test_targets_are_combined_with_as_many_keeps_as_asked() -> None:
    assert list(beside(TASK, 0)) == []
    assert list(beside(TASK, 2)) == [
        ("a cat in noto style", "a cat in blob style"),
        ("a twemoji in noto style", "a twemoji in blob style"),
    ]
    empty = Task((Target("bomb", "unsafe"),), keeps=("mono",))
    assert list(beside(empty, 1)) == [("a bomb in mono style", "a mono")]


def test_an_option_out_of_range_is_refused_by_name() -> None:
    for options in ({"reach": 1.0}, {"reach": 0.0}, {"hold": 1.1}, {"floor": 0.0}, {"beside": -1}):
        with pytest.raises(BadOption, match=next(iter(options))):
            Redirect(**options)  # type: ignore[arg-type]
