"""SalUn against its paper's equation, and what its options promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.salun import SalUn
from erase.methods.training.pictures import diffusion_loss, picture_loss, relabel_loss
from erase.methods.training.session import Session
from erase.models import Model
from erase.task import Target, Task
from tests.methods.trained import FEW, MANY, NEW, OLD, STYLE, predictions, seen, square

SMALL = FEW | {"keep_batch": 2, "keep_trajectories": 2, "mask_batches": 2}
KEPT = Task(STYLE.targets, keeps=("a dog in blob style", "a fish"))


def test_the_loss_on_pictures_is_the_papers_equation() -> None:
    predicted, truth = seen(2)
    assert diffusion_loss(predicted, truth).item() == pytest.approx(square(predicted, truth), rel=1e-12)


def test_relabelled_pictures_pull_the_targets_side_alone(model: Model) -> None:
    session = Session.start(SalUn(**SMALL), model, STYLE, work=None)
    parameters = session.chosen("x-strict")
    clean = torch.randn(2, *session.denoiser.shape, generator=torch.Generator().manual_seed(1))

    def once() -> torch.Generator:
        return torch.Generator().manual_seed(2)

    given = relabel_loss(session, clean, [OLD] * 2, others=[NEW] * 2, generator=once())
    gradients = torch.autograd.grad(given, list(parameters.values()))
    times = torch.randint(session.denoiser.times, (2,), generator=(generator := once()))
    noise = torch.randn(clean.shape, generator=generator)
    noisy = session.denoiser.level(times).noisy(clean, noise)
    old, new = (session.denoiser.predict(noisy, times, session.given([text] * 2)) for text in (OLD, NEW))
    assert given.item() == pytest.approx(square(old.detach().double(), new.detach().double()), rel=1e-5)
    expected = torch.autograd.grad((old * (2 * (old - new).detach() / old.numel())).sum(), list(parameters.values()))
    for mine, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-7)
    own = picture_loss(session, clean, [OLD] * 2, generator=once())
    assert own.item() == pytest.approx(square(old.detach().double(), noise.double()), rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_the_weights_changes_and_no_other(model: Model, share: float) -> None:
    method = SalUn(**SMALL, share=share, layers="x")
    changed = sum(int((delta != 0).sum()) for delta in method(model, KEPT).deltas.values())
    whole = sum(value.numel() for value in Session.start(method, model, KEPT, work=None).chosen("x").values())
    assert 0.5 * share < changed / whole <= 1.02 * share


def test_target_and_anchor_are_predicted_more_alike(model: Model) -> None:
    edit = SalUn(**MANY | SMALL | {"steps": 40, "learning_rate": 1e-3}, alpha=0.0, layers="x-strict")(model, STYLE)
    before = predictions(model, OLD) - predictions(model, NEW)
    after = predictions(model, OLD, edit) - predictions(model, NEW, edit)
    assert after.norm() < 0.8 * before.norm()


def test_several_targets_with_all_their_words_are_taught(model: Model) -> None:
    task = Task((Target("cat", "object", synonyms=("kitty",)), Target("car", "object", anchor="fish")))
    assert SalUn(**SMALL)(model, task).deltas


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"alpha": -1.0}, "alpha"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"layers": ""}, "layers"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SalUn(**options)
