"""Redirect: its minimum against an independent derivation, and what it promises of targets, keeps and fixed states."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadOption
from erase.methods.closed_form.ridge import gram, matrix
from erase.methods.closed_form.spectrum import Moments, main_directions
from erase.methods.redirect import Redirect, redirect
from erase.models import Model
from erase.run.options import method_with
from erase.task import Target, Task
from tests.methods.formulas import WIDTH, states

TASK = Task((Target("noto", "style", anchor="blob"),), keeps=("cat", "dog", "twemoji"))


def halves(rows: int) -> list[Moments]:
    return [Moments.of(states(rows, 1), states(rows, 2)), Moments.of(states(rows, 5), states(rows, 6))]


def test_the_empty_prompt_and_main_directions_of_the_keeps_stay() -> None:
    kept = [gram(states(40, seed)) / 40 for seed in (3, 4)]
    empty = states(2, 7)
    moved = matrix(redirect(halves(3), kept, empty=empty, method=Redirect(hold=0.3)))
    main = main_directions((kept[0] + kept[1]) / 2, 0.3).T
    for fixed in (empty[:1], main):
        assert (fixed @ moved.T - fixed).abs().max() < 1e-10
    assert (states(3, 1) @ moved.T - states(3, 1)).abs().max() > 1e-3


def test_rank_is_at_most_the_width_however_many_pairs() -> None:
    up, down = redirect(halves(60), [gram(states(40, 3)) / 40] * 2, empty=states(1, 7), method=Redirect())
    assert up.shape[1] <= WIDTH
    assert down.shape[1] == WIDTH


def test_targets_within_what_is_held_are_an_error() -> None:
    empty = states(1, 7)
    folds = [Moments.of(empty, states(1, 2))] * 2
    with pytest.raises(BadOption, match="lower hold"):
        redirect(folds, [gram(states(40, 3)) / 40] * 2, empty=empty, method=Redirect(hold=0.0))


def test_main_directions_are_the_fewest_that_hold_their_share() -> None:
    moment = torch.diag(torch.tensor([1.0, 6.0, 3.0])).double()
    assert main_directions(moment, 0.0).shape == (3, 0)
    assert main_directions(moment, 0.6).abs().tolist() == [[0.0], [1.0], [0.0]]
    assert main_directions(moment, 0.9).shape == (3, 2)
    assert main_directions(moment, 1.0).shape == (3, 3)


def test_empty_prompt_stays_and_a_target_becomes_its_anchor_in_a_model(model: Model) -> None:
    moved = Redirect(hold=0.2, phrasings="own")(model, TASK).text_maps[0].matrix()
    old, new, empty = model.encode(["noto", "blob", ""]).states.double()
    assert (empty[0] @ moved.T - empty[0]).abs().max() < 1e-4
    assert (empty @ moved.T - empty).norm() < 0.1 * empty.norm()
    assert (old @ moved.T - new).norm() < 0.75 * (old - new).norm()


def test_an_option_out_of_range_is_refused_by_name() -> None:
    for options in ({"balance": 0.0}, {"hold": 1.1}, {"floor": 0.0}):
        with pytest.raises(BadOption, match=next(iter(options))):
            Redirect(**options)  # type: ignore[arg-type]


def test_hardened_holds_a_target_behind_words_that_it_was_not_told_better_than_not(model: Model) -> None:
    assert method_with("redirect", {"preset": "hardened"}) == Redirect(contexts=200)
    asked = [f"{words} noto" for words in ("blue tall car", "an old red", "two big dogs")]
    become = [text.replace("noto", "blob") for text in asked]
    old, new = (model.encode(texts).states.double() for texts in (asked, become))

    def left(method: Redirect) -> float:
        moved = method(model, TASK).text_maps[0].matrix()
        return float((old @ moved.T - new).norm() / (old - new).norm())

    assert left(Redirect(contexts=60)) < left(Redirect())
