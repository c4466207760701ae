"""Concept Ablation against its paper's equations, and what its options promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.ca import CA, ca_loss, start_token_detached
from erase.methods.training.session import Session
from erase.models import Condition, Model
from erase.task import Target, Task
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions, seen, square


def test_the_loss_is_the_papers_equation_and_pulls_one_side_alone() -> None:
    predicted, aim = seen(2)[0].requires_grad_(True), seen(3)[2].requires_grad_(True)
    loss = ca_loss(predicted, aim)
    assert loss.item() == pytest.approx(square(predicted, aim), rel=1e-12)
    loss.backward()  # type: ignore[no-untyped-call]
    assert aim.grad is None
    expected = 2 * (predicted - aim).detach() / predicted.numel()
    torch.testing.assert_close(predicted.grad, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_target_and_anchor_are_predicted_more_alike(model: Model) -> None:
    edit = CA(**MANY | {"learning_rate": 1e-3})(model, STYLE)
    before = predictions(model, OLD) - predictions(model, NEW)
    after = predictions(model, OLD, edit) - predictions(model, NEW, edit)
    assert after.norm() < 0.6 * before.norm()


def test_no_gradient_passes_through_the_start_token(model: Model) -> None:
    session = Session.start(CA(**FEW), model, STYLE, work=None)

    def gradient() -> torch.Tensor:
        states = session.given([OLD]).states.clone().requires_grad_(True)
        inputs = torch.ones(1, *session.denoiser.shape)
        session.denoiser.predict(inputs, torch.tensor([500]), Condition(states)).square().sum().backward()  # type: ignore[no-untyped-call]
        assert states.grad is not None
        return states.grad[0]

    with start_token_detached(session):
        held = gradient()
    free = gradient()
    assert not held[0].any()
    assert held[1:].abs().sum(1).min() > 0
    assert free[0].any()


def test_losses_and_a_prior_give_edits_of_their_own(model: Model) -> None:
    chosen: list[dict[str, Any]] = [
        {},
        {"loss": "noise"},
        {"prior_weight": 1.0},
        {"loss": "noise", "prior_weight": 1.0},
    ]
    edits = [CA(**FEW, **options)(model, STYLE) for options in chosen]
    assert len({edit.content for edit in edits}) == 4


def test_a_prior_holds_the_anchor(model: Model) -> None:
    # With the noise loss alone the anchor's prediction is free; the prior trains it towards the noise.
    free, held = (CA(**FEW, loss="noise", prior_weight=weight)(model, STYLE) for weight in (0.0, 100.0))
    assert not torch.allclose(predictions(model, NEW, free), predictions(model, NEW, held))


def test_an_empty_anchor_and_several_targets_are_trained(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("car", "object", anchor="fish")))
    edit = CA(**FEW)(model, task)
    assert {name for name, delta in edit.deltas.items() if delta.any()} == {site.name for site in model.sites()}


@pytest.mark.parametrize(
    ("options", "named"),
    [({"loss": "both"}, "loss"), ({"prior_weight": -1.0}, "prior_weight"), ({"layers": ""}, "layers")],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        CA(**options)
