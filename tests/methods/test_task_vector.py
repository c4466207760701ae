"""The task vector: what was learnt is learnt, and then taken away as often as asked."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods import task_vector
from erase.methods.task_vector import TaskVector, likeness, subtracted, told
from erase.methods.training.pictures import Noised, diffusion_loss
from erase.methods.training.search import Inverter, Learning
from erase.methods.training.session import Session
from erase.methods.training.trainer import draws
from erase.models import Condition, Model
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


INVERTING: dict[str, Any] = {"strength": "inversion", "inversions": 2, "inversion_steps": 3, "tries": 2}


def test_what_soft_tokens_are_kept_apart_by_is_the_mean_square_of_their_cosines() -> None:
    mine, *others = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for other in others:
        one, two = mine.flatten().tolist(), other.flatten().tolist()
        along = sum(x * y for x, y in zip(one, two, strict=True))
        expected += along**2 / (sum(x * x for x in one) * sum(y * y for y in two)) / 2
    assert likeness(mine, others=others, weight=0.3).item() == pytest.approx(0.3 * expected, rel=1e-9)
    assert likeness(mine, others=[], weight=0.3).item() == 0


def test_more_diversity_makes_soft_tokens_less_alike(model: Model) -> None:
    session = Session.start(TaskVector(**FEW, **INVERTING), model, STYLE, work=None)
    inverter = Inverter(session, session.bank(session.plan([(OLD, ())])), Learning(1, 60, 2, 0.05))
    known, start = inverter.start("art"), inverter.start("art")

    def alike(weight: float) -> float:
        apart = partial(likeness, others=[known], weight=weight)
        made = inverter.learned(STYLE.targets[0], start, seed=0, said="noto", beside=apart)
        return float(torch.cosine_similarity(made.flatten(), known.flatten(), dim=0).abs())

    assert alike(1.0) < 0.5 * alike(0.0)


class Told:
    """What a network tells of the concept at each try, whatever it is asked."""

    def __init__(self, *gains: list[float]) -> None:
        self.gains = list(gains)

    def __call__(self, *asked: Any) -> list[float]:
        return self.gains.pop(0)


@pytest.mark.parametrize(
    ("gains", "remains", "scale"),
    [
        ([[0.4, 0.2], [0.1, 0.0], [-0.1, 0.0], [0.0, 0.0]], 0.0, 2.0),
        ([[0.4, 0.2], [0.1, 0.0], [-0.1, 0.0], [0.0, 0.0]], 0.3, 1.0),
        ([[0.4, -0.2], [0.1, 0.1], [0.3, 0.3], [0.2, 0.2]], 0.0, 3.0),
    ],
)
def test_the_smallest_scale_at_which_nothing_brings_the_concept_back_is_taken(
    gains: list[list[float]],
    remains: float,
    scale: float,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(task_vector, "told", Told(*gains))
    method = TaskVector(**FEW | INVERTING | {"tries": 3}, scale=3.0, remains=remains)
    found, once = method(model, STYLE), TaskVector(**FEW)(model, STYLE)
    assert found.info.record["scale"] == scale
    for name, delta in found.deltas.items():
        torch.testing.assert_close(delta, scale * once.deltas[name], rtol=1e-4, atol=1e-7)
    assert ("still brings the concept back" in caplog.text) is (scale == 3.0)


def test_the_scales_that_were_tried_and_what_each_told_are_in_the_edits_record(model: Model) -> None:
    record = TaskVector(**FEW, **INVERTING, scale=4.0)(model, STYLE).info.record
    assert [one["scale"] for one in record["told"]][:2] == [0.0, 2.0]
    assert record["scale"] == record["told"][-1]["scale"]
    assert {len(one["gains"]) for one in record["told"]} == {3}  # the name, two inversions


def test_what_is_told_is_the_gain_over_the_empty_prompt(model: Model) -> None:
    session = Session.start(TaskVector(**FEW), model, STYLE, work=None)
    bank = session.bank(session.plan([(OLD, ())]))
    empty, own = (Condition(session.given([text]).states[0]) for text in ("", OLD))
    gains = told(session, bank, {OLD: [empty, own]})
    assert gains[0] == 0
    total = 0.0
    generator = draws(0, -100)
    for clean in bank.clean:
        noised = Noised.of(session.denoiser, clean[None].repeat(8, 1, 1, 1), generator)
        with torch.no_grad():
            errors = [square(noised.predicted(session, [text] * 8), noised.truth) for text in ("", OLD)]
        total += (errors[0] - errors[1]) / len(bank.clean)
    assert gains[1] == pytest.approx(total, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    "options", [{"strength": "most"}, {"tries": 0}, {"inversions": 0}, {"remains": 1.5}, {"diversity": -1.0}]
)
def test_an_option_of_the_search_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match=next(iter(options))):
        TaskVector(**options)
