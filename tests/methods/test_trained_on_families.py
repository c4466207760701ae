"""Every trained method on every model family: an edit that reaches the prediction, or a refusal in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from erase import registry
from erase.edit import Edit
from erase.errors import EraseError
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.trainer import Trained
from erase.models import Condition, Model, conditions_of
from erase.sampling.guides import guide_of
from tests.families import Opener
from tests.methods.test_on_families import PROMPT, TASK, prediction
from tests.models.probes import run
from tests.tiny_families import FAMILIES, SIDE

TRAINED = [name for name in registry.known("methods") if issubclass(registry.load("methods", name), Trained)]  # type: ignore[arg-type]
# What trains the text encoder knows no model with several, what learns soft tokens none with T5, what is of UNets no
# transformer.
REFUSED = {("advunlearn", family) for family in ("stable-diffusion-xl", "stable-diffusion-3", "flux")}
REFUSED |= {(method, family) for method in ("stereo", "withstand") for family in ("stable-diffusion-3", "flux")}
REFUSED |= {(method, family) for method in ("fmn", "i2i", "receler") for family in ("stable-diffusion-3", "flux")}
QUICK = {"steps": 2, "batch": 1, "trajectories": 1, "sampling_steps": 2, "learning_rate": 1e-3, "warm_up": 1}
QUICK |= {"attack_steps": 1, "keep_trajectories": 1, "fisher": 1, "mask_batches": 1}
QUICK |= {"rounds": 1, "search_steps": 1, "inversion_steps": 1, "pictures": 2, "contexts": 0}


def make(method: str, model: Model, **more: Any) -> Edit:
    build: Any = registry.load("methods", method)
    known = {field.name for field in dataclasses.fields(build)}
    options = QUICK | {"size": SIDE * pixels(model)} | more
    edit: Edit = build(**{key: value for key, value in options.items() if key in known})(model, TASK)
    return edit


def pixels(model: Model) -> int:
    """How many pixels a side of a latent's value has."""
    return int(model.pipeline().vae_scale_factor)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", TRAINED)
def test_it_trains_the_family_or_refuses_it_in_one_line(
    method: str, family: str, family_model: Opener, pipe_of: Callable[[str], Any]
) -> None:
    model, pipe = family_model(family), pipe_of(family)
    if (method, family) in REFUSED:
        with pytest.raises(EraseError) as refusal:
            make(method, model)
        assert family in str(refusal.value)
        assert "\n" not in str(refusal.value)
        return
    edit = make(method, model)
    before = prediction(pipe)
    with guide_of(edit, model).attached(pipe) if edit.guidance else edit.apply(pipe):
        assert (prediction(pipe) - before).abs().max() > 1e-6
    assert torch.equal(prediction(pipe), before)


@pytest.mark.parametrize("method", ["stereo", "withstand", "task_vector"])
def test_what_learns_soft_tokens_trains_a_stable_diffusion_3_without_t5(method: str, without_t5: Opener) -> None:
    """Both encoders, and the pooled state: the prediction moves by what reads either."""
    model = without_t5("stable-diffusion-3")
    edit = make(method, model, strength="inversion", inversions=1, tries=1)
    pipe = model.pipeline()
    before = prediction(pipe)
    with edit.apply(pipe):
        assert (prediction(pipe) - before).abs().max() > 1e-6
    assert torch.equal(prediction(pipe), before)


def test_a_task_vector_by_inversion_refuses_t5_in_one_line(family_model: Opener) -> None:
    with pytest.raises(EraseError, match=r"^task_vector with strength: inversion .*T5.* use strength: given"):
        make("task_vector", family_model("flux"), strength="inversion")


@pytest.mark.parametrize("family", FAMILIES)
def test_it_asks_the_network_as_the_familys_pipeline_does(
    family: str, family_model: Opener, pipe_of: Callable[[str], Any]
) -> None:
    model, pipe = family_model(family), pipe_of(family)
    denoiser = Denoiser.from_pipe(model, pipe, size=SIDE * pixels(model))
    noise = torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    given = Condition.stack(model.encode([PROMPT]).conditions())
    with torch.inference_mode():
        predicted = denoiser.predict(noise, torch.tensor([300]), given)
    expected = run(pipe, given)
    if family == "flux":
        expected = pipe._unpack_latents(expected, SIDE * pixels(model), SIDE * pixels(model), pipe.vae_scale_factor)
    assert denoiser.shape == tuple(noise.shape[1:])
    torch.testing.assert_close(predicted, expected)


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_it_trains_on_as_many_tokens_of_t5_as_it_is_told(
    family: str, family_model: Opener, pipe_of: Callable[[str], Any]
) -> None:
    model, pipe = family_model(family), pipe_of(family)
    expected = conditions_of(pipe, [PROMPT], max_sequence_length=7)[PROMPT]
    found = model.encode([PROMPT], max_sequence_length=7).conditions()[0]
    assert found.states.shape == expected.states.shape
    assert found.states.shape[0] < model.encode([PROMPT]).conditions()[0].states.shape[0]
    torch.testing.assert_close(found.states, expected.states)
    whole, short = (make("esd", model, **more) for more in ({}, {"max_sequence_length": 7}))
    assert whole.content != short.content


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_weights_that_wait_on_the_cpu_train_the_same_edit(family: str, family_model: Opener) -> None:
    model = family_model(family)
    plain, away = make("esd", model, gradient_checkpointing=True), make("esd", model, offload=True)
    assert plain.deltas
    for name, value in plain.deltas.items():
        # Convolutions that stay are laid out again, and round otherwise.
        assert (away.deltas[name] - value).norm() <= 2e-2 * value.norm(), name


@pytest.mark.parametrize("method", ["esd", "distil"])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_it_trains_float32_masters(method: str, family: str, family_model: Opener) -> None:
    model = family_model(family)
    edit = make(method, model, precision="bfloat16")
    values = _values(edit)
    assert values
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in values)
    # a step of 1e-3 of weights that are rounded to eight bits would be a multiple of their last one
    assert any(not torch.equal(value, value.bfloat16().float()) for value in values)
    assert not all(torch.equal(mine, other) for mine, other in zip(values, _values(make(method, model)), strict=True))


def _values(edit: Edit) -> list[torch.Tensor]:
    return [*edit.deltas.values(), *(one.up for one in edit.low_rank)]


@pytest.mark.gpu
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", TRAINED)
def test_it_trains_on_a_card(method: str, precision: str, offload: bool, family_model: Opener) -> None:
    edit = make(method, family_model("stable-diffusion"), precision=precision, offload=offload)
    assert {value.device.type for value in _values(edit)} == {"cpu"}
