"""SAFREE's projectors, the tokens it finds, and the steps it lasts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.methods.safree import SAFREE, Projected, Projecting, carriers, projector, without
from erase.models import Condition, Model, open_model
from erase.sampling.guides import PromptBatch
from erase.task import Target, Task

TASK = Task((Target("noto", "style", synonyms=("google",)),))


def rows(count: int, seed: int, width: int = 12) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_projector_keeps_its_span_and_drops_what_is_orthogonal() -> None:
    spanned = rows(3, 1)
    matrix = projector(spanned)
    # by the normal equations, where the official code writes C (C^T C)^-1 C^T with states as columns
    columns = spanned.T
    torch.testing.assert_close(
        matrix, columns @ torch.linalg.inv(columns.T @ columns) @ columns.T, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(spanned @ matrix.T, spanned)
    assert (without(matrix) @ spanned.T).abs().max() < 1e-10
    torch.testing.assert_close(matrix @ matrix, matrix)


def test_the_token_without_which_a_prompt_leaves_the_concept_carries_it() -> None:
    concept = rows(2, 1)
    near = rows(5, 2) * 0.01 + concept[0]
    near[3] = rows(1, 3)[0]
    found = carriers(near, projector(concept), alpha=0.01)
    assert bool(found[3])
    distances = [float((without(projector(concept)) @ one).norm()) for one in near]
    for number, distance in enumerate(distances):
        others = [other for place, other in enumerate(distances) if place != number]
        assert bool(found[number]) == (distance > 1.01 * sum(others) / 4)
    assert not carriers(near, projector(concept), alpha=1e9).any()


@torch.no_grad()
def begun(options: SAFREE, model: Model, task: Task, prompts: tuple[str, ...]) -> tuple[Projecting, Projected]:
    """The guide of a task and the sampling of some prompts under it."""
    guide = options.guide(model, task, strength=1.0)
    states, empty = (model.encode(texts).states for texts in (list(prompts), [""] * len(prompts)))
    guided = guide.begin(model.pipeline(), PromptBatch(prompts, Condition(states), Condition(empty), 3.0))
    assert isinstance(guide, Projecting)
    assert isinstance(guided, Projected)
    return guide, guided


def test_a_carriers_state_is_projected_and_no_other_moves(model: Model) -> None:
    prompt = "a cat in noto style"
    guide, guided = begun(SAFREE(alpha=0.0), model, TASK, (prompt,))
    states = model.encode([prompt]).states
    moved = (guided.safe[0] - states[0]).abs().sum(1) > 1e-6
    assert bool(moved[1:6].any())
    assert not moved[0]
    assert not moved[6:].any()
    assert (guided.safe[0][moved].double() @ guide.concepts[0]).abs().max() < 1e-4


@pytest.mark.parametrize(("kind", "slope", "centre"), [("object", 5.0, 5.333), ("style", 7.0, 5.5)])
def test_steps_are_counted_by_the_official_sigmoid_of_how_far_all_tokens_move(
    model: Model, kind: Any, slope: float, centre: float
) -> None:
    prompt, task = "a cat in noto style", Task((Target("noto", kind),))
    encoding, pipe = model.encode([prompt]), model.pipeline()
    length = int(encoding.lengths[0])
    pooled = []
    for token in range(1, length - 1):  # as the official code: the id 0 stands in the token's place
        ids = encoding.ids.clone()
        ids[0, token] = 0
        with torch.no_grad():
            pooled.append(pipe.text_encoder(ids).last_hidden_state[0, length - 1].double())
    concept = model.encode(["noto"]).states[0, int(model.encode(["noto"]).lengths[0]) - 1].double()[:, None]
    spans = [one @ torch.linalg.pinv(one.T @ one) @ one.T for one in (concept, torch.stack(pooled, 1))]
    old = encoding.states[0, :length].double().T  # with the start token and the first end token
    new = (torch.eye(len(old)) - spans[0]) @ spans[1] @ old
    beta = 1 - sum(float(o @ n / (o.norm() * n.norm())) for o, n in zip(old.T, new.T, strict=True)) / length
    expected = round(1000 / (1 + math.exp(-slope * (10 * beta - centre))))
    assert 0 < expected < 1000
    _, guided = begun(SAFREE(steps_scale=1000.0), model, task, (prompt,))
    assert guided.steps.tolist() == [expected]


def test_prompts_that_name_the_target_are_projected_in_some_steps_and_others_in_none() -> None:
    emoji, task = open_model("emoji"), Task((Target("cat", "object", synonyms=("kitty",)),))
    named = ("a cat in noto style", "a drawing of a kitty by twemoji", "cat, mono")
    others = ("a house in noto style", "a drawing of an airplane by twemoji", "dog, mono", "")
    _, guided = begun(SAFREE(), emoji, task, named + others)
    assert min(guided.steps.tolist()[: len(named)]) > 0
    assert guided.steps.tolist()[len(named) :] == [0] * len(others)


def test_a_prompt_longer_than_the_model_reads_is_cut_as_its_pipeline_does(model: Model) -> None:
    long = "a cat in noto style " * model.max_tokens
    guide, pipe = SAFREE().guide(model, TASK, strength=1.0), model.pipeline()
    states = model.encode([long], cut=True).states
    with torch.no_grad():
        guided = guide.begin(pipe, PromptBatch((long,), Condition(states), Condition(states), 3.0))
    assert isinstance(guided, Projected)
    assert guided.safe.shape == states.shape


def test_guidance_starts_from_the_concepts_words_where_it_is_asked_to(model: Model) -> None:
    _, guided = begun(SAFREE(negative=True), model, TASK, ("a dog",))
    torch.testing.assert_close(guided.batch.empty.states, model.encode(["noto, google"]).states)
    _, guided = begun(SAFREE(), model, TASK, ("a dog",))
    torch.testing.assert_close(guided.batch.empty.states, model.encode([""]).states)


def test_projected_states_last_as_long_as_they_should() -> None:
    zeros = Condition(torch.zeros(2, 1, 1))
    batch = PromptBatch(("a", "b"), zeros, zeros, 1.0)
    guided = Projected(batch, torch.ones(2, 1, 1), torch.tensor([2, 0]))
    seen = [guided.predict(lambda asked: [asked[0].states], step).flatten().tolist() for step in range(4)]
    assert seen == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_an_empty_prompt_is_left_alone(model: Model) -> None:
    _, guided = begun(SAFREE(), model, TASK, ("",))
    assert guided.steps.tolist() == [0]
    torch.testing.assert_close(guided.safe, model.encode([""]).states)


@pytest.mark.parametrize(("options", "named"), [({"alpha": -1.0}, "alpha"), ({"steps_scale": -1.0}, "steps_scale")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SAFREE(**options)
