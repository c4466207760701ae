"""GEM against its paper's equation, and what its options promise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.gem import GEM, first_steps, gem_loss
from erase.methods.training.session import Session
from erase.models import Model
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions, seen


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_loss_is_the_papers_equation(eta: float) -> None:
    anchor, concept, predicted = seen(3)[[1, 0, 2]]  # of the two latents one is nearer to the anchor already
    total = 0.0
    for mine, aim, off in zip(predicted, anchor, concept, strict=True):
        near = math.dist(mine.flatten().tolist(), aim.flatten().tolist())
        total += max(near - eta * math.dist(mine.flatten().tolist(), off.flatten().tolist()), 0.0)
    assert total > 0
    assert gem_loss(predicted, anchor, concept, eta=eta, gamma=7.0).item() == pytest.approx(7 * total / 2, rel=1e-12)


def test_what_is_nearer_to_the_anchor_learns_no_more_and_the_start_has_a_finite_gradient() -> None:
    concept, anchor = seen(2)
    near = (0.4 * concept + 0.6 * anchor).requires_grad_(True)
    loss = gem_loss(near, anchor, concept, eta=1.0, gamma=100.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert near.grad is not None
    assert not near.grad.any()
    start = concept.clone().requires_grad_(True)
    gem_loss(start, anchor, concept, eta=1.0, gamma=2.0).backward()  # type: ignore[no-untyped-call]
    assert start.grad is not None
    # at the start the concept's own distance is 0, and all of the pull is to the anchor
    expected = (concept - anchor) / (concept - anchor).flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(start.grad, expected)


def test_it_learns_from_the_first_steps_of_each_trajectory(model: Model) -> None:
    session = Session.start(GEM(**FEW), model, STYLE, work=None)
    bank = session.bank(session.plan((old, (new,)) for old, new in session.asked))
    few = first_steps(bank, 0.3)
    assert torch.equal(few.times, bank.times[:, :2])
    assert few.times.min() > bank.times[:, 2:].max()
    assert few.draw(5, torch.Generator()).predictions.shape[1] == 5


def test_the_targets_prediction_comes_nearer_to_its_anchors(model: Model) -> None:
    edit = GEM(**MANY | {"early": 1.0, "layers": "x-strict", "learning_rate": 3e-5})(model, STYLE)
    aim, before, after = predictions(model, NEW), predictions(model, OLD), predictions(model, OLD, edit)
    assert (after - aim).norm() < 0.8 * (before - aim).norm()


def test_it_changes_queries_and_keys_and_ships_as_a_lora(model: Model) -> None:
    edit = GEM(**FEW)(model, STYLE)
    assert {name.rpartition("attn2.")[2] for name in edit.touches} == {"to_q.weight", "to_k.weight"}
    assert edit.low_rank
    assert not edit.deltas


def test_a_bank_that_is_sampled_again_gives_another_edit(model: Model) -> None:
    assert GEM(**FEW)(model, STYLE).content != GEM(**FEW, refresh=2)(model, STYLE).content


@pytest.mark.parametrize(
    ("options", "named"),
    [({"eta": -1.0}, "eta"), ({"early": 1.5}, "early"), ({"early": 0.0}, "early"), ({"layers": "kv"}, "layers")],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        GEM(**options)
