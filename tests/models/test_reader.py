"""Prompts with embeddings in the place of words: read as the pipelines read the words, by all encoders at once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from erase.errors import BadModel
from erase.methods.training.denoiser import Denoiser
from erase.methods.training.inversion import place
from erase.models import PromptReader, check_reader, conditions_of, open_model
from tests.families import Opener

CLIPS = ("stable-diffusion", "stable-diffusion-2", "stable-diffusion-xl", "stable-diffusion-3")
SIDE_BY_SIDE = CLIPS[2:]


def id_of(pipe: Any, word: str) -> Tensor:
    return torch.tensor(pipe.tokenizer(word, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def by_pipeline(pipe: Any, prompt: str, **more: Any) -> list[Tensor]:
    """A prompt's states, and its pooled state where there is one, as the pipeline encodes it."""
    found = pipe.encode_prompt(prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, **more)
    return [one for one in found[::2] if one is not None]


@pytest.mark.parametrize("family", CLIPS)
def test_words_in_their_places_are_read_as_the_pipeline_reads_the_text(without_t5: Opener, family: str) -> None:
    pipe = without_t5(family).pipeline()
    more = {"prompt_2": None, "prompt_3": None} if family == "stable-diffusion-3" else {}
    reader = PromptReader.of(pipe)
    prompts = place(pipe.tokenizer, ["a cat in Noto style", "a picture of the rose"], ["noto"], count=2)
    words = reader.embeddings(torch.stack([id_of(pipe, "blob dog"), id_of(pipe, "fish car")]))
    found = reader.read(prompts.ids, words, prompts.places)
    for row, text in enumerate(["a cat in blob dog style", "fish car a picture of the rose"]):
        states, *pooled = by_pipeline(pipe, text, **more)
        torch.testing.assert_close(found.states[row], states[0], rtol=0, atol=1e-5)
        assert len(pooled) == (family in SIDE_BY_SIDE) == (found.pooled is not None)
        if found.pooled is not None:
            torch.testing.assert_close(found.pooled[row], pooled[0][0], rtol=0, atol=1e-5)


def test_fewer_tokens_for_t5_and_layers_left_out_are_read_as_images_are_sampled(without_t5: Opener) -> None:
    pipe = without_t5("stable-diffusion-3").pipeline()
    wanted = conditions_of(pipe, ["a rose"], max_sequence_length=1, clip_skip=1)["a rose"]
    ids = place(pipe.tokenizer, ["a rose"], [], count=0).ids
    found = PromptReader.of(pipe, max_sequence_length=1, clip_skip=1).read(ids)
    torch.testing.assert_close(found.states[0], wanted.states, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.pooled[0], wanted.pooled, rtol=0, atol=1e-6)  # type: ignore[index]


@pytest.mark.parametrize("family", CLIPS)
def test_the_encoders_of_a_models_files_read_as_those_of_its_pipeline(without_t5: Opener, family: str) -> None:
    model = without_t5(family)
    pipe, more = model.pipeline(), {"max_sequence_length": 3}
    prompts = place(pipe.tokenizer, ["a cat in Noto style"], ["noto"], count=2)
    mine, theirs = PromptReader.of_model(model, torch.device("cpu"), **more), PromptReader.of(pipe, **more)
    words = torch.randn(1, 2, mine.embeddings(torch.tensor(3)).shape[-1], generator=torch.Generator().manual_seed(1))
    found, expected = (reader.read(prompts.ids, words, prompts.places) for reader in (mine, theirs))
    torch.testing.assert_close(found.states, expected.states, rtol=0, atol=1e-6)
    assert (found.pooled is None) == (expected.pooled is None)
    if found.pooled is not None:
        torch.testing.assert_close(found.pooled, expected.pooled, rtol=0, atol=1e-6)
    assert mine.present[0].network is not model.encoders[0].network


def test_methods_are_told_what_to_use_instead_of_words(family_model: Opener) -> None:
    with pytest.raises(BadModel, match=r"reads prompts by T5 \(text_encoder_2\), too; use redirect\.$"):
        check_reader(family_model("flux"), "withstand", instead="redirect")


def loss_by_hand(pipe: Any, family: str, *, ids: list[Tensor], latent: Tensor) -> Callable[[list[Tensor]], Tensor]:
    """The mean square of the network's prediction in float64, of the embeddings of each encoder at places 1 and 2."""
    encoders = [copy.deepcopy(one).double() for one in (pipe.text_encoder, pipe.text_encoder_2)]

    def loss(soft: list[Tensor]) -> Tensor:
        states, pooled = [], []
        for encoder, own, tokens in zip(encoders, ids, soft, strict=True):
            embedded = torch.cat([encoder.get_input_embeddings()(own)[:, :1], tokens[None]], 1)
            rest = encoder.get_input_embeddings()(own)[:, 3:]
            whole = torch.cat([embedded, rest], 1)
            hook = encoder.get_input_embeddings().register_forward_hook(lambda *_, whole=whole: whole)
            output = encoder(own, output_hidden_states=True)
            hook.remove()
            states.append(output.hidden_states[-2])
            pooled += [output.text_embeds] if hasattr(output, "text_embeds") else []
        time = torch.tensor([400])
        if family == "stable-diffusion-xl":
            numbers = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]]).double()
            added = {"text_embeds": pooled[-1], "time_ids": numbers}
            network = copy.deepcopy(pipe.unet).double()
            found = network(latent, time, encoder_hidden_states=torch.cat(states, -1), added_cond_kwargs=added).sample
        else:
            clips = torch.nn.functional.pad(torch.cat(states, -1), (0, 96 - 32 - 48))
            filled = torch.cat([clips, torch.zeros(1, 256, 96).double()], 1)
            both = {"encoder_hidden_states": filled, "pooled_projections": torch.cat(pooled, -1)}
            found = copy.deepcopy(pipe.transformer).double()(latent, timestep=time, **both).sample
        return found.square().mean()

    return loss


@pytest.mark.parametrize("family", SIDE_BY_SIDE)
def test_the_gradients_estimate_of_an_exchange_is_the_loss_slope_in_float64(without_t5: Opener, family: str) -> None:
    model = without_t5(family)
    pipe = model.pipeline()
    reader, denoiser = PromptReader.of(pipe), Denoiser.from_pipe(model, pipe)
    prompts = place(pipe.tokenizer, ["a cat in style"], [], count=2)
    latent = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(2))
    before, after = (reader.embeddings(id_of(pipe, text)) for text in ("noto blob", "noto fish"))
    tokens = before[None].clone().requires_grad_(True)
    given = reader.read(prompts.ids, tokens, prompts.places)
    (gradient,) = torch.autograd.grad(denoiser.predict(latent, torch.tensor([400]), given).square().mean(), [tokens])
    estimate = (gradient[0] * (after - before)).sum().double()

    text = "noto blob a cat in style"
    ids = [
        one(text, padding="max_length", max_length=one.model_max_length, return_tensors="pt").input_ids
        for one in (pipe.tokenizer, pipe.tokenizer_2)
    ]
    loss, step = loss_by_hand(pipe, family, ids=ids, latent=latent.double()), 1e-3
    with torch.no_grad():
        ends = [loss(list((before + sign * step * (after - before)).double().split([32, 48], -1))) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert slope.abs() > 1e-6
    torch.testing.assert_close(estimate, slope, rtol=1e-2, atol=0)


@pytest.mark.parametrize("family", ["stable-diffusion-3", "flux"])
def test_a_model_that_t5_reads_for_is_refused_with_what_can_be_used(family_model: Opener, family: str) -> None:
    with pytest.raises(BadModel, match=r"gcg .* reads prompts by T5 .*use random_prefix, .* relearn") as told:
        check_reader(family_model(family), "gcg")
    assert ("without text_encoder_3" in str(told.value)) == (family == "stable-diffusion-3")


def test_encoders_of_unlike_vocabularies_are_refused(family_model: Opener) -> None:
    pipe = family_model("stable-diffusion-xl").pipeline()
    pipe.tokenizer_2.add_tokens("<café>")
    with pytest.raises(BadModel, match="vocabularies of tokenizer, tokenizer_2 differ"):
        check_reader(open_model(pipe), "gcg")
