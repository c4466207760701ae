"""Images of every family against the family's own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor

from erase.config.prompts import Row
from erase.errors import BadModel
from erase.models import conditions_of
from erase.sampling.generate import ddim, generate, sample_batch, start
from erase.sampling.sampler import Sampler
from tests.families import Opener

ROWS = (Row("a cat in noto style", 3), Row("a dog", 4))


def ours(pipe: Any, guidance: float) -> Tensor:
    conditions = conditions_of(pipe, [row.prompt for row in ROWS])
    return sample_batch(pipe, ROWS, conditions=conditions, sampler=Sampler(steps=3, guidance=guidance))


def theirs(pipe: Any, guidance: float) -> Tensor:
    own, pipe.scheduler = pipe.scheduler, ddim(pipe)
    latents = torch.cat([start(pipe, row.seed) for row in ROWS])
    prompts = [row.prompt for row in ROWS]
    images = pipe(prompts, num_inference_steps=3, guidance_scale=guidance, latents=latents, output_type="pt").images
    pipe.scheduler = own
    return torch.as_tensor(images)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl"])
def test_images_are_those_of_the_familys_own_pipeline(
    family: str, guidance: float, pipe_of: Callable[[str], Any]
) -> None:
    pipe = pipe_of(family)
    torch.testing.assert_close(ours(pipe, guidance), theirs(pipe, guidance), rtol=0, atol=1e-4)


def test_a_velocity_is_not_taken_for_noise(family_model: Opener) -> None:
    pipe = family_model("stable-diffusion-2").pipeline()
    right = ours(pipe, 5.0)
    pipe.scheduler.register_to_config(prediction_type="epsilon")
    assert (ours(pipe, 5.0) - right).abs().max() > 0.01


def test_latents_are_not_clipped_where_the_models_scheduler_says_nothing_of_it(pipe_of: Callable[[str], Any]) -> None:
    pipe = pipe_of("stable-diffusion")
    own, pipe.scheduler = pipe.scheduler, EulerDiscreteScheduler()
    assert ddim(pipe).config.clip_sample is False
    pipe.scheduler = own


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_families_that_cannot_be_sampled_yet_say_so_before_anything_is_made(
    family: str, family_model: Opener, tmp_path: Path
) -> None:
    with pytest.raises(BadModel, match=f"is a {family} model, of which no images"):
        generate(family_model(family), ROWS, tmp_path / "images")
    assert not (tmp_path / "images").exists()
