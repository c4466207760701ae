"""The network as trained methods see it: what it predicts, how noisy its latents are, what it costs."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler

from erase.errors import BadModel, BadOption
from erase.methods._denoiser import Denoiser
from erase.models import Condition, Model


def test_a_noise_level_is_that_of_the_models_scheduler(model: Model) -> None:
    denoiser = Denoiser.of(model)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, *denoiser.shape, generator=generator)
    times = torch.tensor([0, 500, 999])
    ddpm = DDPMScheduler.from_config(denoiser.scheduler.config)
    noisy = denoiser.level(times).noisy(clean, noise)
    torch.testing.assert_close(noisy, ddpm.add_noise(clean, noise, times))
    assert torch.equal(denoiser.truth(clean, noise, times), noise)
    denoiser.scheduler = DDPMScheduler.from_config(denoiser.scheduler.config, prediction_type="v_prediction")
    torch.testing.assert_close(denoiser.truth(clean, noise, times), ddpm.get_velocity(clean, noise, times))


def test_a_flow_models_level_is_its_share_of_the_time(model: Model) -> None:
    denoiser = Denoiser.of(model)
    denoiser.scheduler = FlowMatchEulerDiscreteScheduler()
    clean, noise = torch.full((2, 1, 4, 8, 8), 3.0)
    level = denoiser.level(torch.tensor([250]))
    assert (level.alpha.item(), level.sigma.item()) == (0.75, 0.25)
    scaled = denoiser.scheduler.scale_noise(clean, torch.tensor([1000.0]), noise)
    torch.testing.assert_close(denoiser.level(torch.tensor([1000])).noisy(clean, noise), scaled)
    assert torch.equal(denoiser.truth(clean, noise + 1, torch.tensor([250])), torch.ones_like(clean))


def test_ddim_clips_no_latents_of_a_model_that_says_nothing_of_clipping(model: Model) -> None:
    denoiser = Denoiser.of(model)
    denoiser.scheduler = PNDMScheduler(skip_prk_steps=True, steps_offset=1)
    assert denoiser.sampler("ddim", 5).config.clip_sample is False
    assert denoiser.sampler("ddim", 5).config.steps_offset == 1
    assert isinstance(denoiser.sampler("own", 5), PNDMScheduler)


def test_an_unknown_kind_of_prediction_is_told(model: Model) -> None:
    denoiser = Denoiser.of(model)
    denoiser.scheduler = DDPMScheduler.from_config(denoiser.scheduler.config, prediction_type="sample")
    with pytest.raises(BadModel, match='predicts "sample"'):
        denoiser.level(torch.tensor([1]))


def test_a_pass_that_is_trained_through_counts_three(model: Model) -> None:
    denoiser = Denoiser.of(model)
    inputs, times = torch.zeros(2, *denoiser.shape), torch.tensor([1, 2])
    given = Condition(model.encode(["", "a cat"]).states.clone())
    with torch.no_grad():
        denoiser.predict(inputs, times, given)
    assert denoiser.evaluations == 2
    denoiser.predict(inputs, times, given)
    assert denoiser.evaluations == 8


def test_its_network_is_frozen_and_in_float32(model: Model) -> None:
    network = Denoiser.of(model).network
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_size_that_the_network_cannot_read_is_refused(model: Model) -> None:
    scale = model.pipeline().vae_scale_factor
    assert Denoiser.of(model, size=16 * scale).shape == (4, 16, 16) != Denoiser.of(model).shape
    with pytest.raises(BadOption, match=f"size is {9 * scale}; expected a multiple of {8 * scale}"):
        Denoiser.of(model, size=9 * scale)
