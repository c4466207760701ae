"""Double projection against its equation with the inverse written out; keeps hold exactly, the rank is the targets."""

from __future__ import annotations

import pytest
import torch

from erase.errors import BadOption
from erase.methods.closed_form.ridge import matrix
from erase.methods.closed_form.spectrum import complement
from erase.methods.closed_form.states import Pairs, last_states
from erase.methods.dp import DP, double_projection
from erase.models import Model
from erase.run.options import method_with
from erase.task import Target, Task

WIDTH, TARGETS, KEEPS = 48, 4, 20
TASK = Task(
    [Target("Van Gogh", anchor="painting"), Target("José Ribera", anchor="painting")],
    keeps=["Claude Monet", "Rembrandt"],
)


def problem() -> tuple[Pairs, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(TARGETS, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2))
    return Pairs(old, new, torch.arange(TARGETS)), torch.randn(KEEPS, WIDTH, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("value", ["anchor", "safe"])
def test_the_map_is_the_papers_with_its_inverse_written_out(value: str) -> None:
    pairs, keeps = problem()
    factors, condition = double_projection(pairs, complement(keeps), method=DP(value=value, lamb=0.0))  # type: ignore[arg-type]
    c, s, k = pairs.old.T, pairs.new.T, keeps.T
    projection = torch.eye(WIDTH, dtype=torch.float64) - k @ torch.linalg.inv(k.T @ k) @ k.T
    becomes = s @ torch.linalg.inv(s.T @ s) @ s.T @ c if value == "safe" else s
    inner = c.T @ projection @ c
    expected = torch.eye(WIDTH, dtype=torch.float64) + (becomes - c) @ torch.linalg.inv(inner) @ c.T @ projection
    assert torch.allclose(matrix(factors), expected, atol=1e-9)
    assert condition == pytest.approx(float(torch.linalg.cond(inner)), rel=1e-6)


def test_targets_land_exactly_and_keeps_do_not_move() -> None:
    pairs, keeps = problem()
    found = matrix(double_projection(pairs, complement(keeps), method=DP(lamb=0.0))[0])
    assert torch.allclose(pairs.old @ found.T, pairs.new, atol=1e-9)
    assert torch.allclose(keeps @ found.T, keeps, atol=1e-9)
    assert int(torch.linalg.matrix_rank(found - torch.eye(WIDTH))) == TARGETS


def test_a_ridge_moves_less() -> None:
    pairs, keeps = problem()
    moved = [
        float((matrix(double_projection(pairs, complement(keeps), method=DP(lamb=lamb))[0]) - torch.eye(WIDTH)).norm())
        for lamb in (0.0, 0.1, 1.0)
    ]
    assert moved[0] > moved[1] > moved[2] > 0


def test_keeps_that_fill_the_space_leave_nothing_and_that_is_said() -> None:
    pairs, _ = problem()
    with pytest.raises(BadOption, match="lower hold"):
        double_projection(pairs, complement(pairs.old), method=DP())


def test_the_papers_preset_has_a_rank_for_each_word_and_tells_its_condition_number(model: Model) -> None:
    edit = method_with("dp", {"preset": "paper", "hold": 0.9})(model, TASK)
    assert edit.rank == 2
    assert edit.info.record["condition"]["tokens"] >= 1


def test_the_papers_preset_holds_the_last_words_of_keeps_to_rounding(model: Model) -> None:
    edit = method_with("dp", {"preset": "paper", "value": "anchor"})(model, TASK)
    kept, old = (last_states(model, texts)["tokens"].double() for texts in (TASK.kept, ["Van Gogh", "José Ribera"]))
    shift = edit.text_maps[0].up.double() @ edit.text_maps[0].down.double()
    assert float((kept @ shift.T).norm() / kept.norm()) < 1e-5
    assert float((old @ shift.T).norm() / old.norm()) > 0.1
    everything = method_with("dp", {"preset": "paper", "value": "anchor", "keep_tokens": "all", "hold": 0.9})(
        model, TASK
    )
    assert everything.content != edit.content
