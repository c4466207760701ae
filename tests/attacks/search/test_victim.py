"""A side of an attack: its latents are the network's own, and its words a tokenizer's, whatever the family."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from erase.attacks.search.candidates import Vocabulary
from erase.attacks.search.denoising import asked, inverted
from erase.attacks.search.victim import Side
from erase.attacks.search.weights import Tuning, matrices, picture_loss
from erase.config.prompts import Row
from erase.errors import BadModel
from erase.models import Model
from erase.sampling.sampler import Sampler

ROW = Row("a cat in noto style", 3)


@pytest.fixture
def side(each_model: Model) -> Side:
    return Side.load(each_model, None, Sampler(steps=2, guidance=2.0, batch=1))


def test_latents_are_as_the_network_is_asked_with_them_and_decode_to_what_is_drawn(side: Side) -> None:
    latents = side.latents([ROW])
    assert latents.shape == (1, *side.denoiser.shape)
    assert inverted(side, latents, rounds=1).shape == latents.shape
    (ours,), (theirs,) = side.decode(latents), side.draw([ROW])
    assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1


def test_words_are_those_of_the_first_tokenizer(side: Side) -> None:
    assert {"cat", "dog", "rose"} <= set(Vocabulary.of(side.tokenizer).words)


def test_only_what_clip_reads_alone_is_searched_for_words(side: Side) -> None:
    if all(text.causal for text in side.model.texts):
        assert side.reader.embeddings(torch.tensor([1, 2])).shape[0] == 2
    else:
        with pytest.raises(BadModel, match="reads prompts by T5"):
            _ = side.reader


def test_a_distilled_model_is_guided_by_its_true_guidance_alone(side: Side) -> None:
    latents, times = torch.randn(1, *side.denoiser.shape, generator=torch.Generator().manual_seed(0)), 400
    guided = asked(side, [ROW.prompt], 1)(latents, times)
    side.sampler = Sampler(steps=2, guidance=1.0, batch=1)
    assert torch.equal(guided, asked(side, [ROW.prompt], 1)(latents, times)) == (side.model.family == "flux")


def test_the_network_is_trained_further_on_its_pictures_and_left_as_it_was(side: Side) -> None:
    loss = picture_loss(side, side.latents([ROW]), ["a blob café"], batch=1)
    before, generator = side.denoiser.digest(), torch.Generator().manual_seed(0)
    values = Tuning(1, 1e-3, rank=4).values(side, loss, generator=generator, progress=lambda done, total: None)
    assert set(values) <= set(matrices(side))
    assert any(not torch.equal(value, matrices(side)[name]) for name, value in values.items())
    assert side.denoiser.digest() == before
