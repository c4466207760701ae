"""RECE against its paper's equations with the weights of every layer at hand, and what its options promise."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadOption
from erase.methods.closed_form.ridge import gram, matrix
from erase.methods.closed_form.states import Pairs
from erase.methods.rece import RECE, way_back
from erase.models import Model
from erase.run.options import method_for
from erase.task import Kind, Target, Task
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
    method = RECE(rounds=rounds, reg=0.01, together=False)
    seen = sum((gram(weight) for weight in LAYERS), torch.zeros(WIDTH, WIDTH, dtype=torch.float64))
    factors = method.erase(Pairs(old, new, torch.zeros(3)), 0.1 * gram(keeps), seen=seen, exact=None)
    expected = published(old, new, keeps=keeps, rounds=rounds, reg=0.01)
    for weight, wanted in zip(LAYERS, expected, strict=True):
        assert relative(weight, wanted) > 0.1
        assert relative(weight @ matrix(factors), wanted) < 1e-6


@pytest.mark.parametrize("rounds", [1, 3])
def test_rounds_together_are_one_step_from_the_original_weights(rounds: int) -> None:
    old, new, keeps = states(3, 4), states(3, 5), states(6, 6)
    seen = sum((gram(weight) for weight in LAYERS), torch.zeros(WIDTH, WIDTH, dtype=torch.float64))
    factors = RECE(rounds=rounds, reg=0.01).erase(
        Pairs(old, new, torch.zeros(3)), 0.1 * gram(keeps), seen=seen, exact=None
    )
    all_old, all_new, scales = old, new, (1.0, 0.1, 0.1)
    for _ in range(rounds):
        edited = [ridge_step(weight, all_old, all_new, keeps=keeps, scales=scales) for weight in LAYERS]
        left = 0.01 * torch.eye(WIDTH, dtype=torch.float64) + sum(after.T @ after for after in edited)
        right = sum(after.T @ before for after, before in zip(edited, LAYERS, strict=True))
        all_old = torch.cat([all_old, torch.stack([torch.linalg.inv(left) @ right @ state for state in old])])
        all_new = torch.cat([all_new, new])
    for weight in LAYERS:
        wanted = ridge_step(weight, all_old, all_new, keeps=keeps, scales=scales)
        assert relative(weight, wanted) > 0.1
        assert relative(weight @ matrix(factors), wanted) < 1e-6


def test_a_published_round_takes_a_target_past_its_anchor_by_how_much_the_derived_state_resembles_it() -> None:
    old, new, lamb = states(1, 4), states(1, 5), 1e-6
    first = layer_of(old, new, lamb=lamb)
    derived = way_back(old, first, seen=gram(torch.cat(LAYERS)), reg=0.1)
    overlap = float(derived[0] @ old[0] / (lamb + derived[0] @ derived[0]))
    for weight in LAYERS:
        after = weight @ first @ layer_of(derived, new, lamb=lamb) @ old[0]
        goal, back = weight @ first @ new[0], weight @ first @ derived[0]
        torch.testing.assert_close(after, weight @ new[0] + overlap * (goal - back), rtol=1e-5, atol=1e-5)


def layer_of(old: torch.Tensor, new: torch.Tensor, *, lamb: float) -> torch.Tensor:
    eye = torch.eye(WIDTH, dtype=torch.float64)
    return ridge_step(eye, old, new, keeps=states(0, 1), scales=(1.0, 0.0, lamb))


def test_more_rounds_leave_targets_at_their_anchors_where_published_ones_do_not(model: Model) -> None:
    old, new = model.encode(["noto", "blob"]).states.double()
    far = float((old - new).norm())
    for rounds in (1, 2, 4):
        matrix_of = {
            together: RECE(rounds=rounds, together=together, phrasings="own")(model, TASK).text_maps[0].matrix()
            for together in (True, False)
        }
        left = {together: float((old @ moved.T - new).norm()) for together, moved in matrix_of.items()}
        assert left[True] < 0.5 * far < left[False]


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


@pytest.mark.parametrize(
    ("kind", "rounds", "reg"), [("style", 1, 1e-3), ("object", 1, 1e-3), ("identity", 1, 1e-3), ("unsafe", 2, 0.1)]
)
def test_the_rounds_of_a_kind_are_those_of_the_official_page(kind: Kind, rounds: int, reg: float, model: Model) -> None:
    made = method_for("rece", {}, model=model, task=Task((Target("noto", kind),)))
    assert made == RECE(rounds=rounds, reg=reg)
