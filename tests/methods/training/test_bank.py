"""A bank holds what sampling one by one would have seen, once, and is taken up where it was left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler
from torch import Tensor

from erase.context import RunContext
from erase.errors import BadOption
from erase.methods.training.bank import Bank, Plan, Trajectory, sample_bank
from erase.methods.training.denoiser import Denoiser
from erase.models import Condition, Model

PLAN = Plan(
    (Trajectory("a cat in noto style", 3), Trajectory("noto style", 4), Trajectory("a cat in noto style", 5)),
    steps=5,
    guidance=3.0,
    batch=2,
)


def given(model: Model, plan: Plan) -> dict[str, Condition]:
    return dict(zip(plan.texts, model.encode(plan.texts).conditions(), strict=True))


def sampled(model: Model, plan: Plan, **work: Path) -> tuple[Bank, int]:
    """A bank and how many evaluations it took."""
    denoiser = Denoiser.of(model)
    return sample_bank(denoiser, plan, given(model, plan), work=RunContext(**work)), denoiser.evaluations


@torch.no_grad()
def one_by_one(model: Model, plan: Plan, row: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What the network saw and predicted (empty, prompted) on one trajectory, sampled alone and by hand."""
    denoiser, trajectory = Denoiser.of(model), plan.trajectories[row]
    kept = denoiser.scheduler.alphas_cumprod.double()
    stride = 1000 // plan.steps
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(trajectory.seed))
    encoded, seen = model.encode(["", trajectory.prompt]).states, []
    for number in reversed(range(plan.steps)):
        time = number * stride + 1  # the tiny model's scheduler has steps_offset 1
        empty, prompted = (denoiser.network(noisy, time, encoder_hidden_states=one[None]).sample for one in encoded)
        seen.append((noisy, empty, prompted))
        noise = (empty + plan.guidance * (prompted - empty)).double()
        now, later = kept[time], kept[time - stride] if time > stride else kept[0]  # DDIM, eq. 12 with eta 0
        clean = (noisy.double() - (1 - now).sqrt() * noise) / now.sqrt()
        noisy = (later.sqrt() * clean + (1 - later).sqrt() * noise).float()
    return [*seen, (noisy, noisy, noisy)]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_trajectory_is_the_one_that_is_sampled_alone(model: Model, row: int) -> None:
    bank, _ = sampled(model, PLAN)
    *steps, (clean, _, _) = one_by_one(model, PLAN, row)
    assert bank.times[row].tolist() == [801, 601, 401, 201, 1]
    for number, (noisy, empty, prompted) in enumerate(steps):
        torch.testing.assert_close(bank.inputs[row, number], noisy[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(bank.predictions[row, number], torch.cat([empty, prompted]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bank.clean[row], clean[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(bank.predictions[row, 0, 0], bank.predictions[row, 0, 1])


def test_it_takes_two_evaluations_a_step_and_one_for_each_further_prompt(model: Model) -> None:
    assert sampled(model, PLAN)[1] == 3 * 5 * 2
    further = replace(PLAN, trajectories=tuple(replace(one, also=("a cat",)) for one in PLAN.trajectories))
    bank, evaluations = sampled(model, further)
    assert evaluations == 3 * 5 * 3
    with torch.no_grad():
        asked = Condition(model.encode(["a cat"]).states)
        expected = Denoiser.of(model).predict(bank.inputs[0, 2:3], bank.times[0, 2:3], asked)
    torch.testing.assert_close(bank.predictions[0, 2, 2:3], expected, rtol=1e-4, atol=1e-5)


def test_keeping_every_second_step_keeps_the_same_steps(model: Model) -> None:
    whole, _ = sampled(model, PLAN)
    half, _ = sampled(model, replace(PLAN, every=2))
    assert torch.equal(half.times, whole.times[:, ::2])
    assert torch.equal(half.inputs, whole.inputs[:, ::2])
    assert torch.equal(half.clean, whole.clean)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' Euler under numpy 2
def test_inputs_are_scaled_as_the_network_saw_them(model: Model) -> None:
    denoiser = Denoiser.of(model)
    denoiser.scheduler = EulerDiscreteScheduler.from_config(denoiser.scheduler.config)
    bank = sample_bank(denoiser, replace(PLAN, scheduler="own"), given(model, PLAN))
    scheduler = denoiser.sampler("own", PLAN.steps)
    sigma = scheduler.sigmas[0]
    assert sigma > 5
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    start = noise * scheduler.init_noise_sigma / (sigma**2 + 1).sqrt()
    torch.testing.assert_close(bank.inputs[0, 0], start, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(start, noise * scheduler.init_noise_sigma)


def test_a_multistep_scheduler_of_the_models_own_is_followed(model: Model) -> None:
    denoiser = Denoiser.of(model)
    denoiser.scheduler = PNDMScheduler.from_config(denoiser.scheduler.config, skip_prk_steps=True)
    own = sample_bank(denoiser, replace(PLAN, scheduler="own"), given(model, PLAN))
    assert own.times.shape == (3, 6)  # its first step is made twice
    assert not torch.allclose(own.clean, sample_bank(denoiser, PLAN, given(model, PLAN)).clean)


def test_a_bank_on_disk_is_read_and_not_sampled_again(model: Model, tmp_path: Path) -> None:
    first, _ = sampled(model, PLAN, banks=tmp_path)
    again, evaluations = sampled(model, PLAN, banks=tmp_path)
    assert evaluations == 0
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.predictions, sampled(model, PLAN)[0].predictions)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_sampling_that_was_stopped_goes_on(model: Model, tmp_path: Path, damage: str) -> None:
    whole, _ = sampled(model, PLAN, banks=tmp_path)
    files = sorted(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2
    if damage == "missing":
        files[1].unlink()
    else:
        files[1].write_bytes(files[1].read_bytes()[:100])
    again, evaluations = sampled(model, PLAN, banks=tmp_path)
    assert evaluations == 1 * 5 * 2
    assert torch.equal(again.predictions, whole.predictions)


def test_another_plan_or_another_network_has_a_bank_of_its_own(model: Model, tmp_path: Path) -> None:
    sampled(model, PLAN, banks=tmp_path)
    assert sampled(model, replace(PLAN, guidance=2.0), banks=tmp_path)[1] > 0
    denoiser = Denoiser.of(model)
    denoiser.network.conv_out.bias.data += 1  # no weight that the prompt reaches
    sample_bank(denoiser, PLAN, given(model, PLAN), work=RunContext(banks=tmp_path))
    assert denoiser.evaluations > 0
    assert len(list(tmp_path.iterdir())) == 3


def test_a_draw_takes_tuples_that_belong_together_and_follows_its_generator(model: Model) -> None:
    bank, _ = sampled(model, PLAN)
    drawn = bank.draw(200, torch.Generator().manual_seed(0))
    again = bank.draw(200, torch.Generator().manual_seed(0))
    assert torch.equal(drawn.inputs, again.inputs)
    assert not torch.equal(drawn.inputs, bank.draw(200, torch.Generator().manual_seed(1)).inputs)
    seen = set()
    for number in range(200):
        row = PLAN.trajectories.index(drawn.trajectories[number])
        step = bank.times[row].tolist().index(int(drawn.times[number]))
        seen.add((row, step))
        assert torch.equal(drawn.inputs[number], bank.inputs[row, step])
        assert torch.equal(drawn.predictions[:, number], bank.predictions[row, step])
    assert len(seen) == 15


def test_a_plan_that_cannot_be_sampled_is_refused() -> None:
    with pytest.raises(BadOption, match="trajectory"):
        Plan(())
    with pytest.raises(BadOption, match="steps is 0"):
        replace(PLAN, steps=0)
    with pytest.raises(BadOption, match="equally many"):
        Plan((Trajectory("a", 0), Trajectory("b", 0, ("c",))))
