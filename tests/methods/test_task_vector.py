"""The task vector: what was learnt is learnt, and then taken away as often as asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.task_vector import TaskVector, subtracted
from erase.methods.training.pictures import diffusion_loss
from erase.methods.training.session import Session
from erase.models import Model
from tests.methods.trained import FEW, MANY, OLD, STYLE, seen, square


def test_the_loss_is_the_mean_squared_distance_to_what_was_mixed_in() -> None:
    predicted, truth = seen(2)
    assert diffusion_loss(predicted, truth).item() == pytest.approx(square(predicted, truth), rel=1e-12)


def test_what_was_learnt_is_subtracted() -> None:
    weight, tuned = seen(2)
    for old, new, left in zip(
        weight.flatten().tolist(),
        tuned.flatten().tolist(),
        (weight + subtracted(tuned - weight, 1.5)).flatten(),
        strict=True,
    ):
        assert left.item() == pytest.approx(old - 1.5 * (new - old), rel=1e-9, abs=1e-12)


def test_twice_the_scale_is_twice_the_edit(model: Model) -> None:
    once, twice = (TaskVector(**FEW, scale=scale)(model, STYLE) for scale in (1.0, 2.0))
    assert once.deltas
    assert all(torch.equal(2 * once.deltas[name], twice.deltas[name]) for name in once.deltas)


@torch.no_grad()
def concept_loss(model: Model, session: Session, deltas: dict[str, torch.Tensor], sign: float) -> float:
    """The diffusion loss on the concept's latents, of the network with the deltas added `sign` times."""
    denoiser = session.denoiser
    bank = session.bank(session.plan([(OLD, ())]))
    clean, texts = bank.draw_clean(16, torch.Generator().manual_seed(5))
    times = torch.arange(50, 1000, 60)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(6))
    named = {f"unet.{name}": value for name, value in denoiser.network.named_parameters()}
    for name, delta in deltas.items():
        named[name].add_(delta, alpha=sign)
    loss = diffusion_loss(
        denoiser.predict(denoiser.level(times).noisy(clean, noise), times, session.given(texts)), noise
    )
    for name, delta in deltas.items():
        named[name].sub_(delta, alpha=sign)
    return float(loss)


def test_adding_it_back_learns_the_concept_and_the_edit_itself_unlearns_it(model: Model) -> None:
    method = TaskVector(**MANY | {"learning_rate": 3e-4})
    deltas = dict(method(model, STYLE).deltas)
    session = Session.start(method, model, STYLE, work=None)
    learnt, plain, unlearnt = (concept_loss(model, session, deltas, sign) for sign in (-1.0, 0.0, 1.0))
    assert learnt < 0.95 * plain
    assert unlearnt > plain


@pytest.mark.parametrize(("options", "named"), [({"scale": 0.0}, "scale"), ({"layers": "most"}, "layers")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        TaskVector(**options)
