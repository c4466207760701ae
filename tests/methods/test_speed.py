"""SPEED against its paper's equation in every layer, and what its constraints promise."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadOption
from erase.methods._ridge import gram
from erase.methods._states import Pairs
from erase.methods.speed import SPEED, centres, influential, null_space
from erase.models import Model
from erase.task import Target, Task
from tests.methods.formulas import WIDTH, relative, states

TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("a dog", "a car", "twemoji", "rose", "fish"))
EYE = torch.eye(WIDTH, dtype=torch.float64)


def pairs(count: int = 3) -> Pairs:
    return Pairs(states(count, 1), states(count, 2), torch.zeros(count))


def published(weight: torch.Tensor, given: Pairs, keeps: torch.Tensor, *, fixed: torch.Tensor) -> torch.Tensor:
    """One layer after the update, in the paper's letters and with the sums of its moments written out."""
    count = len(given.old)
    C_t = sum(torch.outer(old, old) for old in given.old) / count
    C_a = sum(torch.outer(new, old) for old, new in zip(given.old, given.new, strict=True)) / count
    E = weight @ (C_a - C_t) @ torch.linalg.inv(EYE + C_t)
    distances = torch.stack([(E @ keep).norm() for keep in keeps])
    chosen = keeps[distances >= distances.mean()]
    assert 0 < len(chosen) < len(keeps)
    U, S, _ = torch.linalg.svd(sum(torch.outer(keep, keep) for keep in chosen) / len(chosen))
    P = U[:, S < 0.1] @ U[:, S < 0.1].T
    M, K = torch.linalg.inv(C_t @ P + 0.7 * EYE), fixed.T
    inner = torch.linalg.inv(K.T @ P @ M @ K)
    return weight + weight @ (C_a - C_t) @ P @ (EYE - M @ K @ inner @ K.T @ P) @ M


def test_every_layer_is_the_papers_equation() -> None:
    given, keeps, fixed, method = pairs(), states(12, 3), states(4, 4), SPEED(retain_scale=0.7, keeps="layer")
    for rows, seed in ((8, 5), (40, 6)):
        weight = states(rows, seed)
        up, down = method.erase(given, influential(keeps, given, seen=gram(weight)), fixed=fixed)
        expected = published(weight, given, keeps, fixed=fixed)
        assert relative(weight, expected) > 1e-2
        assert relative(weight + weight @ up @ down, expected) < 1e-6


def test_fixed_states_and_kept_ones_do_not_move_but_the_targets_do() -> None:
    given, keeps, fixed = pairs(), states(10, 3), states(4, 4)
    up, down = SPEED().erase(given, keeps, fixed=fixed)
    assert (fixed @ (up @ down).T).abs().max() < 1e-9
    assert (keeps @ (up @ down).T).abs().max() < 1e-9
    assert (given.old @ (up @ down).T).norm() > 0.1 * (given.new - given.old).norm()


def test_a_layer_edit_of_a_model_holds_the_start_token_in_every_layer(model: Model) -> None:
    edit = SPEED(keeps="layer", threshold=0.5)(model, TASK)
    start = model.encode([""]).states[0, 0].double()
    assert set(edit.deltas) == {site.name for site in model.sites()}
    for delta in edit.deltas.values():
        assert (delta.double() @ start).abs().max() < 1e-4 * delta.norm()


def test_keeps_that_leave_no_direction_are_an_error() -> None:
    with pytest.raises(BadOption, match="raise the threshold"):
        SPEED(threshold=1e-9).erase(pairs(), states(3 * WIDTH, 3), fixed=states(1, 4))


def test_without_keeps_every_direction_is_free() -> None:
    assert torch.equal(null_space(states(0, 1), 0.1), EYE)
    assert len(influential(states(0, 1), pairs(), seen=EYE)) == 0


def test_centres_are_the_means_of_states_that_lie_together() -> None:
    places = 100 * states(3, 8)
    near = torch.cat([place + 0.01 * states(5, number) for number, place in enumerate(places)])
    found = centres(near, 3)
    assert torch.cdist(found, places).amin(1).max() < 0.1
    assert torch.cdist(places, found).amin(1).max() < 0.1
    assert len(centres(near[:2], 3)) == 2


def test_an_option_out_of_range_is_refused_by_name() -> None:
    for name in ("threshold", "retain_scale", "centres"):
        with pytest.raises(BadOption, match=name):
            SPEED(**{name: 0})
