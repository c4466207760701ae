"""A refreshed bank holds what the learning network draws, and what the frozen one predicts there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase import registry
from erase.errors import BadOption
from erase.methods.esd import ESD
from erase.methods.training.bank import Plan, Trajectory
from erase.methods.training.refresh import Refresh
from erase.methods.training.session import Session
from erase.methods.training.trainer import Trained
from erase.models import Condition, Model
from tests.methods.trained import FEW, OLD, STYLE

REFRESHED = [name for name in registry.known("methods") if hasattr(registry.load("methods", name), "refresh")]
PLAN = Plan((Trajectory(OLD, 1, ("a dog",)), Trajectory("a cat", 2, ("",))), steps=4, every=2)


def shaken(session: Session) -> dict[str, torch.Tensor]:
    """The network's parameters of a choice as they were, after they were moved."""
    parameters = session.chosen("x")
    before = {name: value.detach().clone() for name, value in parameters.items()}
    with torch.no_grad():
        for number, value in enumerate(parameters.values()):
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
    return before


def test_latents_are_the_students_and_predictions_the_frozen_networks(model: Model) -> None:
    session = Session.start(ESD(**FEW), model, STYLE, work=None)
    bank = session.bank(PLAN)
    before = shaken(session)
    refresh = Refresh.of(session, bank, 1, frozen=lambda: session.holding(session.chosen("x"), before))
    refresh.after(0)
    students = session.bank(PLAN, kept=False)
    torch.testing.assert_close(refresh.bank.inputs, students.inputs)
    assert not torch.allclose(bank.inputs[:, 1:], students.inputs[:, 1:], atol=1e-3)
    with torch.no_grad(), session.holding(session.chosen("x"), before):
        for row, texts in enumerate((["", OLD, "a dog"], ["", "a cat", ""])):
            for step in range(2):
                given = Condition.stack(model.encode(texts).conditions())
                seen = students.inputs[row, step].expand(3, -1, -1, -1), students.times[row, step].expand(3)
                expected = session.denoiser.predict(*seen, given)
                torch.testing.assert_close(refresh.bank.predictions[row, step], expected, rtol=1e-4, atol=1e-5)


def test_it_samples_at_its_interval_and_not_after_the_last_step(model: Model) -> None:
    session = Session.start(ESD(**FEW | {"steps": 6}), model, STYLE, work=None)
    bank = session.bank(PLAN)
    refresh, cost = Refresh.of(session, bank, 2), []
    for step in range(6):
        before = session.denoiser.evaluations
        refresh.after(step)
        cost.append(session.denoiser.evaluations - before)
    once = 2 * 4 * 2  # trajectories, steps, the empty prompt and the prompt; further ones are not needed to sample
    assert cost == [0, once, 0, once, 0, 0]
    assert Refresh.of(session, bank, 0).state == {}


@pytest.mark.parametrize("method", REFRESHED)
def test_it_changes_what_is_learnt(method: str, model: Model) -> None:
    build: Any = registry.load("methods", method)
    options = FEW | {"batch": 1}
    plain, refreshed = (build(**options, refresh=every)(model, STYLE) for every in (0, 1))
    assert plain.content != refreshed.content
    with pytest.raises(BadOption, match=f"{method}: refresh is -1"):
        build(refresh=-1)


def test_every_method_whose_paper_samples_from_the_student_has_it() -> None:
    assert set(REFRESHED) == {"esd", "gem", "sdd", "lora", "spm"}
    assert all(issubclass(registry.load("methods", name), Trained) for name in REFRESHED)  # type: ignore[arg-type]
