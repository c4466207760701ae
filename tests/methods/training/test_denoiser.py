"""The network as trained methods see it: what it predicts, how noisy its latents are, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, PNDMScheduler
from torch import nn

from erase.errors import BadModel, BadOption
from erase.methods.training.denoiser import Denoiser
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


def test_it_loads_neither_text_encoders_nor_the_decoder(each_model: Model, each_pipe: Any) -> None:
    alone = each_model.backbone_alone()
    assert all(getattr(alone, part) is None for part in ("vae", *each_model.text_components))
    assert alone.vae_scale_factor == each_pipe.vae_scale_factor
    assert dict(alone.scheduler.config) == dict(each_pipe.scheduler.config)
    values, expected = (getattr(one, each_model.backbone).state_dict() for one in (alone, each_pipe))
    assert all(torch.equal(values[name], value) for name, value in expected.items())


def test_in_bfloat16_norms_and_biases_stay_as_the_file_has_them(each_model: Model) -> None:
    made = Denoiser.of(each_model, precision="bfloat16")
    kinds = {"matrix": set(), "vector": set()}  # type: dict[str, set[torch.dtype]]
    for name, module in made.network.named_modules():
        for key, value in module.named_parameters(recurse=False):
            kinds["matrix" if value.dim() > 1 else "vector"].add(value.dtype)
            if value.dtype == torch.float32:
                assert torch.equal(value, each_model.weight(f"{made.component}.{name}.{key}")), name
    assert kinds["matrix"] == {torch.bfloat16}
    assert torch.float32 in kinds["vector"]


def test_offloaded_layers_hold_nothing_until_they_are_computed_with(model: Model) -> None:
    away, here = Denoiser.of(model, offload=True), Denoiser.of(model)
    layers = {name: one for name, one in away.network.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)}
    assert layers
    assert all(layer.weight.is_meta for layer in layers.values())
    seen = torch.ones(2, *here.shape), torch.tensor([10, 500]), Condition(model.encode(["", "a cat"]).states.clone())
    with torch.no_grad():
        assert torch.equal(away.predict(*seen), here.predict(*seen))
    assert away.digest() == here.digest()
    away.keep_on_device([f"{next(iter(layers))}.weight"])
    assert [name for name, layer in layers.items() if not layer.weight.is_meta] == [next(iter(layers))]
