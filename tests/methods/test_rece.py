"""RECE against its paper's equations with the weights of every layer at hand, and what its options promise."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadOption
from erase.methods._ridge import gram, matrix
from erase.methods._states import Pairs
from erase.methods.rece import RECE, way_back
from erase.models import Model
from erase.task import Target, Task
from tests.methods.formulas import WIDTH, relative, ridge_step, states

LAYERS = [states(rows, seed) for rows, seed in ((8, 1), (30, 2), (16, 3))]
TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("a dog",))


def published(
    old: torch.Tensor, new: torch.Tensor, *, keeps: torch.Tensor, rounds: int, reg: float
) -> list[torch.Tensor]:
    """The weights of all layers after the rounds, from the equations with W and W' and no map in between."""
    scales = (1.0, 0.1, 0.1)
    edited = [ridge_step(weight, old, new, keeps=keeps, scales=scales) for weight in LAYERS]
    for _ in range(rounds):
        left = reg * torch.eye(WIDTH, dtype=torch.float64) + sum(after.T @ after for after in edited)
        right = sum(after.T @ before for after, before in zip(edited, LAYERS, strict=True))
        found = torch.stack([torch.linalg.inv(left) @ right @ state for state in old])
        edited = [ridge_step(after, found, new, keeps=keeps, scales=scales) for after in edited]
    return edited


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_map_algebra_gives_the_weights_of_every_layer_after_all_rounds(rounds: int) -> None:
    old, new, keeps = states(3, 4), states(3, 5), states(6, 6)
    method = RECE(rounds=rounds, reg=0.01)
    seen = sum((gram(weight) for weight in LAYERS), torch.zeros(WIDTH, WIDTH, dtype=torch.float64))
    factors = method.erase(Pairs(old, new, torch.zeros(3)), 0.1 * gram(keeps), seen=seen, exact=None)
    expected = published(old, new, keeps=keeps, rounds=rounds, reg=0.01)
    for weight, wanted in zip(LAYERS, expected, strict=True):
        assert relative(weight, wanted) > 0.1
        assert relative(weight @ matrix(factors), wanted) < 1e-6


def test_way_back_brings_the_outputs_of_the_unedited_layers_back() -> None:
    old, moved = states(2, 4), torch.eye(WIDTH, dtype=torch.float64) + 0.1 * states(WIDTH, 7)
    seen = gram(torch.cat(LAYERS))
    found = way_back(old, moved, seen=seen, reg=1e-9)
    for weight in LAYERS:
        torch.testing.assert_close(weight @ moved @ found.T, weight @ old.T, rtol=1e-5, atol=1e-5)


def test_no_round_is_uce_and_more_rounds_close_the_way_back(model: Model) -> None:
    ways = []
    state = model.encode(["noto"]).states[0, 1:2].double()
    for rounds in (0, 3):
        edit = RECE(rounds=rounds, tokens="last", protect="none")(model, TASK)
        seen = sum(gram(model.weight(site.name)) for site in model.sites())
        moved = edit.text_maps[0].matrix()
        back = way_back(state, moved, seen=seen, reg=0.1)
        ways.append(float((back @ moved.T - state).norm()))
    assert ways[1] > 1.1 * ways[0]


def test_start_token_and_empty_prompt_do_not_move_when_protected(model: Model) -> None:
    empty = model.encode([""]).states[0].double()
    moved = RECE()(model, TASK).text_maps[0].matrix()
    assert (empty @ moved.T - empty).abs().max() < 1e-5


def test_an_option_out_of_range_is_refused_by_name() -> None:
    for name in ("reg", "lamb", "erase_scale"):
        with pytest.raises(BadOption, match=name):
            RECE(**{name: 0.0})
    with pytest.raises(BadOption, match="rounds"):
        RECE(rounds=-1)
