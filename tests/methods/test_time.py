"""TIME against its paper's equation in every layer, and what its options promise."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadOption
from erase.methods.time import TIME
from erase.models import Model
from erase.run.options import method_with
from erase.task import Target, Task
from tests.methods.formulas import relative, ridge_step

# "a blob cat" holds every token of "a cat": the paper's own case, in which the tokens' new places are written out here.
TASK = Task((Target("a cat", "object", anchor="a blob cat"),), keeps=("a dog",))
PLACES = [0, 1, 3, 4, *range(5, 16), 15]


@pytest.mark.parametrize("weights", ["values", "both"])
def test_every_layer_is_the_papers_equation(model: Model, weights: str) -> None:
    edit = TIME(weights=weights, phrasings="own", preserve_scale=0.0)(model, TASK)  # type: ignore[arg-type]
    old, new = model.encode(["a cat", "a blob cat"]).states.double()
    nothing = torch.empty(0, old.shape[1])
    assert {site.name for site in model.sites() if weights == "both" or site.role == "value"} == set(edit.touches)
    for name in edit.touches:
        weight = model.weight(name).double()
        expected = ridge_step(weight, old, new[PLACES], keeps=nothing, scales=(1.0, 0.0, 0.1))
        assert relative(weight, expected) > 1e-2
        assert relative(weight @ edit.text_maps[0].matrix(), expected) < 1e-6


def test_keeps_enter_but_not_into_the_papers_preset(model: Model) -> None:
    paper, without = method_with("time", {"preset": "paper"}), Task(TASK.targets)
    assert torch.equal(paper(model, TASK).text_maps[0].down, paper(model, without).text_maps[0].down)
    kept = model.encode(["a dog"]).states[0].double()
    moved = [
        (kept @ TIME(preserve_scale=scale)(model, TASK).text_maps[0].matrix().T - kept).norm() for scale in (0.0, 10.0)
    ]
    assert moved[1] < 0.5 * moved[0]


def test_an_option_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(BadOption, match="lamb"):
        TIME(lamb=0.0)
    with pytest.raises(BadOption, match='weights is "v"; expected one of keys, values, both'):
        TIME(weights="v")  # type: ignore[arg-type]
