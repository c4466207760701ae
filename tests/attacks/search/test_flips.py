"""The greedy search over words: its guess is the first-order change, and its exchanges differ in one word."""

from __future__ import annotations

import torch
from torch import Tensor

from erase.attacks.search.candidates import Vocabulary
from erase.attacks.search.flips import Problem, better, candidates
from erase.methods.training.inversion import place
from erase.models import Condition, PromptReader
from tests.attacks.setting import base

WORDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def problem() -> Problem:
    pipe = base().pipeline()
    reader, vocabulary = PromptReader.of(pipe), Vocabulary.of(pipe.tokenizer)
    prompts = place(pipe.tokenizer, ["a cat by Vincent", "a naïve house"], [], count=3)
    aims = reader.read(place(pipe.tokenizer, ["a cat in noto style", "a house"], [], count=0).ids).states.detach()

    def losses(given: Condition, which: Tensor) -> Tensor:
        return (given.states - aims[which]).square().flatten(1).mean(1)

    return Problem(reader, vocabulary, prompts, losses, torch.arange(2))


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    made = problem()
    gradient = made.gradient(WORDS)
    step = torch.zeros_like(gradient)
    step[0, 1] = torch.randn(gradient.shape[-1], generator=torch.Generator().manual_seed(0))
    tokens, prompts = made.embeddings[WORDS], made.prompts
    with torch.no_grad():
        ends = [
            made.losses(made.reader.read(prompts.ids, tokens + sign * 3e-4 * step, prompts.places), made.which)
            for sign in (1, -1)
        ]
    slope = (ends[0] - ends[1])[0] / 6e-4
    assert torch.allclose(slope, (gradient[0] * step[0]).sum(), rtol=5e-2)


def test_each_candidate_exchanges_one_word_and_the_best_guess_is_among_them() -> None:
    made = problem()
    found = candidates(made, WORDS, 4, among=16, generator=torch.Generator().manual_seed(1))
    assert found.shape == (2, 4, 3)
    assert ((found != WORDS[:, None]).sum(-1) == 1).all()
    gradient, table = made.gradient(WORDS).double(), made.embeddings.double()
    gain = (gradient * table[WORDS]).sum(-1, keepdim=True) - gradient @ table.T
    gain.scatter_(2, WORDS[..., None], -torch.inf)
    for row in range(2):
        where, word = divmod(int(gain[row].flatten().argmax()), len(table))
        assert found[row, 0, where] == word


def test_a_search_comes_by_words_of_lower_loss() -> None:
    made, words, generator = problem(), WORDS, torch.Generator().manual_seed(2)
    before = least = made.loss(words, torch.arange(2))
    for _ in range(12):
        words = better(made, words, candidates(made, words, 8, among=32, generator=generator))
        least = least.minimum(made.loss(words, torch.arange(2)))
    assert (least < 0.7 * before).all()


def test_words_read_the_same_when_written_and_none_names_a_minor_or_the_target() -> None:
    tokenizer = base().pipeline().tokenizer
    vocabulary = Vocabulary.of(tokenizer, without=("cat",))
    assert len(vocabulary.words) > 50
    assert not {"cat", "child", "girl", "boy", "baby"} & set(vocabulary.words)
    text = vocabulary.text(range(5))
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == vocabulary.ids[:5].tolist()
