"""SAFREE's projectors, the tokens it finds, and the steps it lasts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from erase.errors import BadOption
from erase.guide import Prompted
from erase.methods.safree import SAFREE, Projected, Projecting, carriers, projector, without
from erase.models import Model
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


def test_a_carriers_state_is_projected_and_no_other_moves(model: Model) -> None:
    guide = SAFREE(alpha=0.0).guide(model, TASK, strength=1.0)
    assert isinstance(guide, Projecting)
    pipe, states = model.pipeline(), model.encode(["a cat in noto style"]).states
    with torch.no_grad():
        guided = guide.begin(pipe, Prompted(("a cat in noto style",), states, states, 3.0))
    assert isinstance(guided, Projected)
    moved = (guided.safe[0] - states[0]).abs().sum(1) > 1e-6
    assert bool(moved[1:6].any())
    assert not moved[0]
    assert not moved[6:].any()
    assert int(guided.steps[0]) == round(
        10 / (1 + float(torch.exp(-1 + torch.cosine_similarity(guided.safe.flatten(), states.flatten(), dim=0))))
    )
    assert (guided.safe[0][moved].double() @ guide.concept).abs().max() < 1e-4


def test_projected_states_last_as_long_as_they_should() -> None:
    batch = Prompted(("a", "b"), torch.zeros(2, 1, 1), torch.zeros(2, 1, 1), 1.0)
    guided = Projected(batch, torch.ones(2, 1, 1), torch.tensor([2, 0]))
    seen = [guided.predict(lambda conditions: conditions, step).flatten().tolist() for step in range(4)]
    assert seen == [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]


def test_an_empty_prompt_is_left_alone(model: Model) -> None:
    states = model.encode([""]).states
    guided = SAFREE().guide(model, TASK, strength=1.0).begin(None, Prompted(("",), states, states, 3.0))
    assert isinstance(guided, Projected)
    assert guided.steps.tolist() == [0]


@pytest.mark.parametrize(("options", "named"), [({"alpha": -1.0}, "alpha"), ({"steps_scale": -1.0}, "steps_scale")])
def test_an_option_out_of_range_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(BadOption, match=named):
        SAFREE(**options)
