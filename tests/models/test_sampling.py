"""Images of every family against a plain call of the family's own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from erase.config.prompts import Row
from erase.errors import BadOption
from erase.methods.negative_prompt import NegativePrompt
from erase.models import Model, conditions_of, open_model
from erase.sampling.draw import Output, sample_batch
from erase.sampling.generate import generate, sample
from erase.sampling.sampler import Sampler
from erase.sampling.schedulers import scheduler_of
from erase.task import Target, Task
from tests.families import Opener
from tests.methods.test_contract import make
from tests.tiny_edits import tiny_edit
from tests.tiny_families import FAMILIES, tiny_family

ROWS = (
    Row("a cat in noto style", 3),
    Row("a dog", 4),
    Row("a café in blob style", 5),
    Row("a red car", 3),
    Row("a fish", 6),
)
NATIVE = {"flux": 16}  # where the pipeline's own size is a large one
Pipes = Callable[[str], Any]


def settings(family: str, **changes: Any) -> Sampler:
    return Sampler(**{"steps": 3, "guidance": 5.0, "size": NATIVE.get(family, 0), **changes})


def ours(pipe: Any, sampler: Sampler, *, rows: tuple[Row, ...] = ROWS[:2], output: Output = "pt") -> Tensor:
    conditions = conditions_of(pipe, [row.prompt for row in rows], **sampler.encoding)
    return sample_batch(pipe, rows, conditions=conditions, sampler=sampler, output=output)


def theirs(pipe: Any, sampler: Sampler, *, output: Output = "pt", **more: Any) -> Tensor:
    """What whoever calls the pipeline for one image after the other gets."""
    images = [
        pipe(
            row.prompt,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=torch.Generator().manual_seed(row.seed),
            output_type=output,
            **sampler.sides,
            **more,
        ).images
        for row in ROWS[:2]
    ]
    return torch.cat(images)


def assert_equal(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("output", ["latent", "pt"])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_those_of_a_plain_call_of_the_pipeline(
    family: str, guidance: float, output: Output, pipe_of: Pipes
) -> None:
    sampler = settings(family, guidance=guidance)
    made = ours(pipe_of(family), sampler, output=output)
    assert_equal(made, theirs(pipe_of(family), sampler, output=output))
    assert made.std() > 0.05  # no grey
    assert (made[0] - made[1]).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_among_five_others_is_the_one_made_alone(family: str, pipe_of: Pipes) -> None:
    together = ours(pipe_of(family), settings(family), rows=ROWS)
    for number in (0, 4):
        alone = ours(pipe_of(family), settings(family), rows=ROWS[number : number + 1])
        torch.testing.assert_close(together[number], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_negative_prompt_and_a_size_are_the_pipelines(family: str, pipe_of: Pipes) -> None:
    true = {"flux": 3.0}.get(family, 1.0)
    size = "16x8" if family == "stable-diffusion-3" else "24x16"
    sampler = settings(family, negative="a blob", size=size, true_guidance=true)
    more = {"true_cfg_scale": true} if true > 1 else {}
    made = ours(pipe_of(family), sampler)
    assert_equal(made, theirs(pipe_of(family), sampler, negative_prompt="a blob", **more))
    assert tuple(made.shape[2:]) == (sampler.sides["height"], sampler.sides["width"])
    without = settings(family, size=sampler.size)
    assert (made - ours(pipe_of(family), without)).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_t5_is_given_as_many_tokens_as_are_asked_for(family: str, pipe_of: Pipes) -> None:
    sampler = settings(family, max_sequence_length=32)
    made = ours(pipe_of(family), sampler)
    assert_equal(made, theirs(pipe_of(family), sampler, max_sequence_length=32))
    assert (made - ours(pipe_of(family), settings(family))).abs().max() > 1e-4


def test_a_guard_reads_as_many_tokens_of_t5_as_its_pipeline(family_model: Opener) -> None:
    model, sampler = family_model("stable-diffusion-3"), settings("stable-diffusion-3", max_sequence_length=32)
    task = Task((Target("noto", "style"),))
    edit = NegativePrompt(text="a blob")(model, task)
    found = [np.asarray(image, dtype=int) for _, image in sample(model, ROWS[1:2], sampler, edit=edit)]
    plain = replace(sampler, negative="a blob")
    wanted = [np.asarray(image, dtype=int) for _, image in sample(model, ROWS[1:2], plain)]
    assert np.abs(found[0] - wanted[0]).max() <= 1


def test_a_model_that_is_not_told_its_guidance_draws_the_same_under_any(family_model: Opener) -> None:
    pipe = family_model("flux").pipeline()
    config = dict(pipe.transformer.config) | {"guidance_embeds": False}
    config.pop("_use_default_values", None)
    values = {key: value for key, value in pipe.transformer.state_dict().items() if "guidance_embedder" not in key}
    pipe.transformer = type(pipe.transformer).from_config(config)
    pipe.transformer.load_state_dict(values)
    one, other = (ours(pipe, settings("flux", steps=2, guidance=guidance)) for guidance in (0.0, 3.5))
    assert torch.equal(one, other)
    assert_equal(one, theirs(pipe, settings("flux", steps=2, guidance=0.0)))


@pytest.fixture(scope="module")
def without_t5(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Stable Diffusion 3 as it is shipped for small cards: without its third text encoder."""
    from diffusers import StableDiffusion3Pipeline

    root = tmp_path_factory.mktemp("small")
    whole = tiny_family("stable-diffusion-3", root / "whole")
    StableDiffusion3Pipeline.from_pretrained(whole, text_encoder_3=None, tokenizer_3=None).save_pretrained(root / "it")
    return open_model(root / "it")


@pytest.mark.filterwarnings("ignore:`upcast_vae`:FutureWarning")  # the plain call's, which ours does not show
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_in_half_precision_are_those_of_a_plain_call_in_it(
    family: str, dtype: torch.dtype, family_model: Opener
) -> None:
    pipe, sampler = family_model(family).pipeline(dtype), settings(family, steps=2)
    made = torch.cat([ours(pipe, sampler, rows=ROWS[number : number + 1]) for number in (0, 1)])
    torch.testing.assert_close(made, theirs(pipe, sampler).float(), rtol=0, atol=0.02)
    assert made.std() > 0.05


@pytest.mark.parametrize("method", ["uce", "redirect", "speed", "negative_prompt", "sld", "safree", "adavd"])
def test_a_model_without_t5_is_edited_and_guided(method: str, without_t5: Model) -> None:
    edit, sampler = make(method, without_t5), settings("stable-diffusion-3", batch=2)
    before, after = (
        [image.tobytes() for _, image in sample(without_t5, ROWS[:1], sampler, edit=one)] for one in (None, edit)
    )
    assert before != after


def test_a_model_without_t5_reads_zeros_in_its_place(without_t5: Model, pipe_of: Pipes) -> None:
    pipe, sampler = without_t5.pipeline(), settings("stable-diffusion-3")
    assert pipe.text_encoder_3 is None
    made = ours(pipe, sampler)
    assert_equal(made, theirs(pipe, sampler))
    assert (made - ours(pipe_of("stable-diffusion-3"), sampler)).abs().max() > 1e-3
    given, _, pooled, _ = pipe.encode_prompt(ROWS[0].prompt, None, None, do_classifier_free_guidance=False)
    encoding = without_t5.encode([ROWS[0].prompt])
    torch.testing.assert_close(encoding.states, given)
    torch.testing.assert_close(encoding.pooled, pooled)


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_an_edit_of_either_text_path_reaches_the_images_of_a_flow_model(
    family: str, family_model: Opener, tmp_path: Path
) -> None:
    model, sampler = family_model(family), settings(family, steps=2, batch=2)
    before = generate(model, ROWS[:1], tmp_path / "before", sampler=sampler)
    for reads in ("tokens", "pooled"):
        edit = tiny_edit(model, size=3.0, reads=reads)
        after = generate(model, ROWS[:1], tmp_path / reads, edit=edit, sampler=sampler)
        assert before[0].read_bytes() != after[0].read_bytes()
        pipe = model.pipeline()
        edit.apply(pipe)
        assert_equal(ours(pipe, sampler), theirs(pipe, sampler))


@pytest.mark.parametrize("family", ["stable-diffusion-xl", "stable-diffusion-3"])
def test_layers_of_clip_are_left_out_as_the_pipeline_leaves_them_out(family: str, pipe_of: Pipes) -> None:
    pipe, sampler = pipe_of(family), settings(family, clip_skip=1)
    made = ours(pipe, sampler)
    assert_equal(made, theirs(pipe, sampler, clip_skip=1))
    assert (made - ours(pipe, settings(family))).abs().max() > 1e-3
    with pytest.raises(BadOption, match="clip_skip leaves out more than the 2 layers"):
        ours(pipe, settings(family, clip_skip=2))


@pytest.mark.parametrize("skip", [1, 2])
@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-2"])
def test_what_is_read_before_the_last_layers_goes_through_the_last_norm(family: str, skip: int, pipe_of: Pipes) -> None:
    # The pipeline of the installed diffusers cannot do it with the installed transformers, so by what it means.
    pipe = pipe_of(family)
    made = conditions_of(pipe, ["a cat"], clip_skip=skip)
    ids = pipe.tokenizer("a cat", padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-(skip + 1)]
        (norm,) = (part for name, part in pipe.text_encoder.named_modules() if name.endswith("final_layer_norm"))
        torch.testing.assert_close(made["a cat"].states, norm(states)[0])
    plain = conditions_of(pipe, ["a cat"])
    assert (made["a cat"].states - plain["a cat"].states).abs().max() > 1e-3
    torch.testing.assert_close(made[None].states, plain[None].states)  # nothing is skipped for the empty prompt


SCHEDULERS = ("ddim", "pndm", "euler", "euler_a", "heun", "lms", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "tcd")


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl"])
def test_a_named_scheduler_draws_what_a_plain_call_with_it_draws(family: str, name: str, family_model: Opener) -> None:
    pipe, sampler = family_model(family).pipeline(), settings(family, scheduler=name, steps=5)
    own = pipe.scheduler
    made = ours(pipe, sampler)
    assert pipe.scheduler is own
    pipe.scheduler = scheduler_of(own, name)
    assert pipe.scheduler.config.prediction_type == own.config.prediction_type
    assert_equal(made, theirs(pipe, sampler))
    alone = ours(pipe, sampler, rows=ROWS[1:2])  # also where each step draws noise
    torch.testing.assert_close(made[1], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "unipc"])
@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_a_named_scheduler_of_flow_draws_what_a_plain_call_with_it_draws(
    family: str, name: str, family_model: Opener
) -> None:
    pipe, sampler = family_model(family).pipeline(), settings(family, scheduler=name, steps=5)
    made = ours(pipe, sampler)
    pipe.scheduler = scheduler_of(pipe.scheduler, name)
    assert_equal(made, theirs(pipe, sampler))
    assert made.std() > 0.05


def test_a_noise_schedule_that_ends_in_noise_alone_is_sampled_as_by_its_pipeline(family_model: Opener) -> None:
    pipe, sampler = family_model("stable-diffusion-xl").pipeline(), settings("stable-diffusion-xl", steps=4)
    before = ours(pipe, sampler)
    zero = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    for name in ("DDIMScheduler", "EulerDiscreteScheduler"):
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **zero)
        made = ours(pipe, sampler)
        assert_equal(made, theirs(pipe, sampler))
        assert (made - before).abs().max() > 1e-2
        assert torch.isfinite(made).all()


def test_a_velocity_is_not_taken_for_noise(family_model: Opener) -> None:
    pipe = family_model("stable-diffusion-2").pipeline()
    right = ours(pipe, settings("stable-diffusion-2"))
    pipe.scheduler.register_to_config(prediction_type="epsilon")
    assert (ours(pipe, settings("stable-diffusion-2")) - right).abs().max() > 0.01
