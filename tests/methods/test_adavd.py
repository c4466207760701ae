"""AdaVD against its paper's decomposition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.adavd import AdaVD, decomposed
from erase.models import Model
from erase.task import Target, Task

ALL = AdaVD(scale=1.0, slope=1e6, centre=-1.0)  # takes every concept's direction out of everything
TASK = Task((Target("cat", "object", synonyms=("kitty",)),))


def values(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_one_concepts_direction_is_taken_out_as_far_as_the_paper_says() -> None:
    options, concept = AdaVD(scale=2.0, slope=10.0, centre=0.5), values(1, 1)[0]
    given = torch.cat([values(5, 2), concept[None], 0.5 * (concept + values(1, 3))])
    for value, left in zip(given, decomposed(given, concept[None], options=options), strict=True):
        alike = float(value @ concept / (value.norm() * concept.norm()))
        weight = 2.0 / (1 + math.exp(-10.0 * (alike - 0.5)))
        expected = value - weight * (value @ concept) / (concept @ concept) * concept
        torch.testing.assert_close(left, expected, rtol=1e-10, atol=1e-10)


def test_several_concepts_are_all_taken_out_by_gram_and_schmidt() -> None:
    concepts, given = values(3, 1), values(20, 2)
    left = decomposed(given, concepts, options=ALL)
    assert (left @ concepts.T).abs().max() < 1e-10
    assert (given @ concepts.T).abs().max() > 1.0
    torch.testing.assert_close(decomposed(left, concepts, options=ALL), left, rtol=1e-10, atol=1e-10)


def test_what_is_unlike_stays() -> None:
    concept, given = values(1, 1), values(20, 2)
    alike = torch.cosine_similarity(given, concept)
    assert alike.max() < 0.9
    torch.testing.assert_close(decomposed(given, concept, options=AdaVD()), given, rtol=1e-1, atol=1e-1)
    assert torch.equal(decomposed(given, concept, options=AdaVD(), strength=0.0), given)


@torch.no_grad()
def test_values_lose_the_words_direction_and_the_start_tokens_stay(model: Model) -> None:
    pipe, states = model.pipeline(), model.encode(["a cat", "a dog"]).states
    site = next(site for site in model.sites() if site.role == "value")
    module = pipe.unet.get_submodule(site.key.removesuffix(".weight"))
    before = module(states)
    with ALL.guide(model, TASK, strength=1.0).attached(pipe):
        after = module(states)
    concept = module(model.encode(["cat"]).states[0, 1])
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1:] @ concept).abs().max() < 1e-3 * (before[:, 1:] @ concept).abs().max()
    assert torch.equal(module(states), before)


@pytest.mark.parametrize(("options", "named"), [({"scale": 0.0}, "scale"), ({"centre": 2.0}, "centre")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        AdaVD(**options)
