"""The common training: it is AdamW, it goes on after a kill bit for bit, and it says what goes wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from erase.context import RunContext
from erase.errors import BadOption, TrainingFailed
from erase.methods.training.trainer import Trained, Trainer, draws


@dataclass(frozen=True)
class Some(Trained):
    """A method's options."""


def trainer(options: Trained, *, work: RunContext | None = None, identity: str = "one", state: Any = None) -> Trainer:
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    return Trainer(options, {"weight": weight}, identity, work or RunContext(), state=state or {})


def noisy_square(made: Trainer, *, until: int | None = None) -> Any:
    """A loss that draws; it stops the process where asked."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        if step == until:
            raise KeyboardInterrupt
        return ((made.parameters["weight"] - torch.randn(3, generator=generator)) ** 2).mean()

    return loss


def by_hand(gradients: list[Tensor], start: Tensor, *, rate: float, decay: float) -> Tensor:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) with betas 0.9 and 0.999, in float64."""
    weight, first, second = start.double(), torch.zeros(3).double(), torch.zeros(3).double()
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient.double()
        second = 0.999 * second + 0.001 * gradient.double() ** 2
        move = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        weight = weight - rate * (move + decay * weight)
    return weight


def test_it_is_adamw() -> None:
    made = trainer(Some(steps=4, learning_rate=0.1, weight_decay=0.05))
    start, seen = made.parameters["weight"].detach().clone(), []
    made.parameters["weight"].register_hook(lambda gradient: seen.append(gradient.clone()))
    made.run(noisy_square(made))
    assert len(seen) == 4
    expected = by_hand(seen, start, rate=0.1, decay=0.05)
    torch.testing.assert_close(made.parameters["weight"].detach().double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 5, 9])
def test_going_on_after_a_kill_gives_the_weights_of_an_uninterrupted_run(tmp_path: Path, stop: int) -> None:
    options, average = Some(steps=10, learning_rate=0.1), {"average": torch.zeros(3)}

    def follow(made: Trainer) -> Any:
        return lambda step: made.state["average"].mul_(0.9).add_(made.parameters["weight"].detach(), alpha=0.1)

    whole = trainer(options, state={"average": torch.zeros(3)})
    losses = whole.run(noisy_square(whole), after=follow(whole))
    killed = trainer(options, work=RunContext(tmp_path, seconds=0.0), state=average)
    with pytest.raises(KeyboardInterrupt):
        killed.run(noisy_square(killed, until=stop), after=follow(killed))
    steps: list[int] = []
    again = trainer(
        options,
        work=RunContext(tmp_path, report=lambda text, done, total, **words: steps.append(done)),
        state={"average": torch.zeros(3)},
    )
    assert again.run(noisy_square(again), after=follow(again)) == losses
    assert torch.equal(again.parameters["weight"], whole.parameters["weight"])
    assert torch.equal(again.state["average"], whole.state["average"])
    assert steps[0] == stop + 1


def test_another_trainings_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    options = Some(steps=3, learning_rate=0.1)
    one = trainer(options, work=RunContext(tmp_path, seconds=0.0))
    one.run(noisy_square(one))
    other = trainer(options, work=RunContext(tmp_path), identity="other")
    fresh = trainer(options)
    assert other.run(noisy_square(other)) == fresh.run(noisy_square(fresh))
    assert torch.equal(other.parameters["weight"], fresh.parameters["weight"])


def test_a_damaged_checkpoint_is_not_taken_up(tmp_path: Path) -> None:
    options = Some(steps=3, learning_rate=0.1)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half")
    made, fresh = trainer(options, work=RunContext(tmp_path)), trainer(options)
    assert made.run(noisy_square(made)) == fresh.run(noisy_square(fresh))


def test_a_loss_that_is_not_finite_ends_the_training_in_words(tmp_path: Path) -> None:
    made = trainer(Some(steps=5, learning_rate=0.1), work=RunContext(tmp_path))

    def loss(step: int, generator: torch.Generator) -> Tensor:
        return made.parameters["weight"].sum() * (float("nan") if step == 2 else 1.0)

    with pytest.raises(TrainingFailed, match=r"is nan at step 3 of 5 with learning_rate 0\.1; try a tenth"):
        made.run(loss)
    assert len(json.loads((tmp_path / "losses.json").read_text(encoding="utf-8"))) == 2
    assert bool(torch.isfinite(made.parameters["weight"]).all())


@torch.no_grad()
def test_it_trains_where_its_caller_asks_for_no_gradients() -> None:
    made = trainer(Some(steps=1, learning_rate=0.1))
    before = made.parameters["weight"].detach().clone()
    made.run(noisy_square(made))
    assert not torch.equal(made.parameters["weight"], before)


def test_a_clipped_gradient_has_at_most_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(Some(steps=1, learning_rate=0.1, gradient_clip=0.01))
    made.run(lambda step, generator: (100 * made.parameters["weight"]).sum())
    gradient = made.parameters["weight"].grad
    assert gradient is not None
    assert gradient.norm().item() == pytest.approx(0.01, rel=1e-4)


def test_it_leaves_its_losses_and_their_curve(tmp_path: Path) -> None:
    made = trainer(Some(steps=5, learning_rate=0.1), work=RunContext(tmp_path))
    losses = made.run(noisy_square(made))
    assert json.loads((tmp_path / "losses.json").read_text(encoding="utf-8")) == list(losses)
    with Image.open(tmp_path / "loss.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors() or []}
    assert (0, 0, 255) in colours


def test_draws_depend_on_seed_and_step() -> None:
    values = {(seed, step): torch.rand(1, generator=draws(seed, step)).item() for seed in (0, 1) for step in (0, 1, 2)}
    assert len(set(values.values())) == 6
    assert torch.rand(1, generator=draws(1, 2)).item() == values[1, 2]


def test_clearing_removes_the_checkpoint_and_keeps_the_losses(tmp_path: Path) -> None:
    work = RunContext(tmp_path, seconds=0.0)
    made = trainer(Some(steps=2, learning_rate=0.1), work=work)
    made.run(noisy_square(made))
    (tmp_path / ".checkpoint.safetensors.1.partial").touch()
    assert work.checkpoint is not None
    assert work.checkpoint.is_file()
    work.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "losses.json"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"trajectories": 0}, "trajectories is 0"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"seed": -1}, "seed"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        Some(**options)
