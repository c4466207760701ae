"""AdaVD against its paper's decomposition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.adavd import AdaVD, decomposed
from erase.models import Condition, Model
from erase.sampling.guides import PromptBatch
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


def test_several_concepts_that_are_alike_are_all_taken_out() -> None:
    concepts, given = values(3, 1), values(20, 2)
    left = decomposed(given, concepts, options=ALL)
    assert (left @ concepts.T).abs().max() < 1e-10
    assert (given @ concepts.T).abs().max() > 1.0
    torch.testing.assert_close(decomposed(left, concepts, options=ALL), left, rtol=1e-10, atol=1e-10)


def with_likeness(count: int, likeness: float) -> torch.Tensor:
    """Unit vectors of which every two have this cosine, [count, 8]."""
    gram = torch.full((count, count), likeness, dtype=torch.float64).fill_diagonal_(1.0)
    basis = torch.linalg.qr(values(8, 4))[0][:count]
    return torch.linalg.cholesky(gram) @ basis


@pytest.mark.parametrize("likeness", [0.3, 0.6, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("options", [AdaVD(), AdaVD(scale=1.0, slope=10.0, centre=0.7)])
def test_what_is_left_of_a_concept_does_not_depend_on_its_place(likeness: float, options: AdaVD) -> None:
    concepts = with_likeness(3, min(likeness, 1 - 1e-12))
    left = decomposed(concepts, concepts, options=options)
    assert torch.diag(left @ concepts.T).std() < 1e-6  # the official code's two for three words: -2.4, -2.4, 1.8 at 0.8
    given = torch.cat([values(5, 2), concepts + 0.3 * values(3, 5)])
    for order in ([1, 2, 0], [2, 1, 0]):
        turned = decomposed(given, concepts[order], options=options)
        torch.testing.assert_close(turned, decomposed(given, concepts, options=options), rtol=1e-6, atol=1e-6)


def test_likeness_weighs_the_concepts_of_the_system() -> None:
    """The same by the normal equations: the least |v - sum c_k v_k|^2 + sum (1 / s_k - 1) c_k^2, times scale."""
    options, concepts = AdaVD(scale=1.5, slope=8.0, centre=0.4), with_likeness(3, 0.7)
    for value in torch.cat([values(4, 2), concepts + 0.4 * values(3, 5)]):
        shares = [1 / (1 + math.exp(-8.0 * (float(value @ one / value.norm()) - 0.4))) for one in concepts]
        ridge = torch.diag(torch.tensor([1 / share - 1 for share in shares], dtype=torch.float64))
        found = torch.linalg.inv(concepts @ concepts.T + ridge) @ concepts @ value
        left = decomposed(value[None], concepts, options=options)[0]
        torch.testing.assert_close(left, value - 1.5 * found @ concepts, rtol=1e-9, atol=1e-9)


def test_a_concept_that_is_unlike_changes_nothing_of_what_another_takes() -> None:
    like, other = values(1, 1), torch.linalg.qr(values(8, 1).T)[0].T[1:2]
    given = like + 0.1 * values(6, 2)
    both = decomposed(given, torch.cat([like, other + 0.1 * like]), options=AdaVD())
    torch.testing.assert_close(both, decomposed(given, like, options=AdaVD()), rtol=1e-6, atol=1e-6)


def test_what_is_unlike_stays() -> None:
    concept, given = values(1, 1), values(20, 2)
    alike = torch.cosine_similarity(given, concept)
    assert alike.max() < 0.9
    torch.testing.assert_close(decomposed(given, concept, options=AdaVD()), given, rtol=1e-1, atol=1e-1)
    assert torch.equal(decomposed(given, concept, options=AdaVD(), strength=0.0), given)


@torch.no_grad()
@pytest.mark.parametrize("options", [AdaVD(), AdaVD(slope=5.0, centre=0.8)])
def test_likeness_and_projection_are_of_both_halves_of_guidance_as_in_the_official_code(
    model: Model, options: AdaVD
) -> None:
    pipe, task = model.pipeline(), Task((Target("cat", "object"),))
    empty, prompt = model.encode([""]).states, model.encode(["a cat in noto style"]).states
    site = next(site for site in model.sites() if site.role == "value")
    module = pipe.unet.get_submodule(site.key.removesuffix(".weight"))
    u, v, c = module(empty)[0], module(prompt)[0], module(model.encode(["cat"]).states[0, 1])
    guide = options.guide(model, task, strength=1.0)
    with guide.attached(pipe):
        guide.begin(pipe, PromptBatch(("a cat in noto style",), Condition(prompt), Condition(empty), 3.0))
        after = module(torch.cat([empty, prompt]))
    for place in range(1, len(u)):
        mine, concept = torch.cat([u[place], v[place]]).double(), torch.cat([u[place], c]).double()
        alike = float(mine @ concept / mine.norm() / concept.norm())
        weight = 2.0 / (1 + math.exp(-options.slope * (alike - options.centre)))
        expected = mine - weight * (mine @ concept) / (concept @ concept) * concept
        torch.testing.assert_close(
            torch.cat([after[0, place], after[1, place]]).double(), expected, rtol=1e-4, atol=1e-5
        )
    assert torch.equal(after[:, 0], torch.stack([u[0], v[0]]))


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
