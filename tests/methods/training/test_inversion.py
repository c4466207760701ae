"""Concept inversion: where soft tokens stand, what the loss is, and that it is gone down by."""

from __future__ import annotations

import pytest
import torch

from erase.methods.training.denoiser import Denoiser
from erase.methods.training.inversion import Examples, Places, learn_tokens, place
from erase.models import Model, PromptReader


@pytest.fixture(scope="module")
def denoiser(model: Model) -> Denoiser:
    return Denoiser.of(model)


@pytest.fixture(scope="module")
def reader(model: Model) -> PromptReader:
    return PromptReader.of_model(model, torch.device("cpu"))


def tokens_of(model: Model, prompt: str) -> list[int]:
    encoding = model.encode([prompt])
    return encoding.ids[0, : int(encoding.lengths[0])].tolist()


def test_soft_tokens_stand_where_the_concept_is_named_in_any_case(model: Model) -> None:
    tokenizer = model.pipeline().tokenizer
    found = place(tokenizer, ["a cat in NOTO style", "a cat in kitty style"], ["noto", "kitty"], count=2)
    assert found.places.tolist() == [[4, 5], [4, 5]]
    own = tokens_of(model, "a cat in style")
    assert found.ids[0, :4].tolist() == own[:4]
    assert found.ids[0, 6:8].tolist() == own[4:6]


def test_a_prompt_that_does_not_name_the_concept_has_them_in_front(model: Model) -> None:
    found = place(model.pipeline().tokenizer, ["a cartoon"], ["car"], count=1)
    assert found.places.tolist() == [[1]]


def test_a_soft_token_that_is_a_word_reads_as_the_word(model: Model, reader: PromptReader) -> None:
    prompts = place(model.pipeline().tokenizer, ["a noto style cat"], ["noto"], count=1)
    word = reader.tables[0][tokens_of(model, "dog")[1]]
    with torch.no_grad():
        states = reader.read(prompts.ids, word[None, None], prompts.places).states
    torch.testing.assert_close(states, model.encode(["a dog style cat"]).states, rtol=1e-5, atol=1e-5)


def test_one_step_is_the_gradient_of_the_papers_loss(model: Model, denoiser: Denoiser, reader: PromptReader) -> None:
    generator = torch.Generator().manual_seed(5)
    prompts = place(model.pipeline().tokenizer, ["a noto style cat"], ["noto"])
    clean, start = torch.randn(1, *denoiser.shape, generator=generator), reader.tables[0][7:8]
    rate = 1e-3
    moved = learn_tokens(denoiser, reader, Examples(clean, prompts), start=start, steps=1, batch=1, rate=rate, seed=3)

    drawn = torch.Generator().manual_seed(3)
    torch.randint(1, (1,), generator=drawn)
    times = torch.randint(1000, (1,), generator=drawn)
    noise = torch.randn(clean.shape, generator=drawn).double()
    kept = denoiser.scheduler.alphas_cumprod.double()[times]
    noisy = kept.sqrt() * clean.double() + (1 - kept).sqrt() * noise

    def loss(token: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            states = reader.read(prompts.ids, token.float()[None], prompts.places).states
            predicted = denoiser.network(noisy.float(), times, encoder_hidden_states=states).sample
        return (predicted.double() - noise).square().mean()

    direction = torch.randn(start.shape, generator=generator).double()
    slope = (loss(start + 1e-2 * direction) - loss(start - 1e-2 * direction)) / 2e-2
    step = (moved - start).double()  # Adam's first step is the gradient's sign
    assert torch.allclose(step.abs(), torch.full_like(step, rate), rtol=1e-3)
    assert slope.abs() > 0
    assert loss(start + 30 * step) < loss(start)


def test_it_goes_down_its_loss_and_leaves_the_network_alone(denoiser: Denoiser, reader: PromptReader) -> None:
    generator = torch.Generator().manual_seed(1)
    length = reader.tokenizer.model_max_length
    prompts = Places(torch.full((2, length), 3), torch.tensor([[1], [2]]))
    examples = Examples(torch.randn(2, *denoiser.shape, generator=generator), prompts)
    before = denoiser.digest()
    start = torch.zeros(1, reader.tables[0].shape[1])
    one, other = (learn_tokens(denoiser, reader, examples, start=start, steps=3) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, start)
    assert denoiser.digest() == before
    assert all(parameter.grad is None for parameter in denoiser.network.parameters())
