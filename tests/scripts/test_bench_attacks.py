"""The published loop that attacks are timed against: words on a simplex, drawn straight through."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.attacks.setting import erased

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])


def test_rows_are_projected_to_the_nearest_point_of_the_simplex() -> None:
    from bench_attacks import simplex

    rows = torch.randn(4, 7, generator=torch.Generator().manual_seed(1)).double()
    found = simplex(rows)
    assert torch.allclose(found.sum(-1), torch.ones(4).double())
    assert (found >= 0).all()
    for row, point in zip(rows, found, strict=True):  # the conditions of the minimum: one shift for all that are left
        shifts = (row - point)[point > 0]
        assert torch.allclose(shifts, shifts[0].expand_as(shifts))
        assert (row[point == 0] <= shifts[0] + 1e-12).all()


def test_one_word_is_drawn_and_its_probabilities_get_the_clipped_gradient() -> None:
    from bench_attacks import straight_through

    words = torch.full((2, 3, 5), 0.2, requires_grad=True)
    drawn = straight_through(words, torch.Generator().manual_seed(1))
    assert torch.equal(drawn.detach().sort(-1).values[..., -1].round(), torch.ones(2, 3))
    (4 * drawn[..., 0]).sum().backward()
    assert words.grad is not None
    assert torch.equal(words.grad[..., 0], torch.ones(2, 3))


def test_the_whole_comparison_runs_on_a_tiny_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import bench_attacks as bench

    monkeypatch.setattr(bench, "edits_of", lambda model, quick: {"uce": erased()})
    monkeypatch.setattr(bench, "Literal", partial(bench.Literal, inner=2))
    flags = ["--quick", "--prompts", "3", "--budget", "60", "--steps", "4", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench_attacks.py", *flags])
    bench.main()
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    sides = said["edits"]["uce"]
    assert sides["ours"]["n"] == sides["literal"]["n"] > 0
    assert said["evaluations_ratio"] == pytest.approx(
        sides["literal"]["evaluations"] / sides["ours"]["evaluations"], abs=0.01
    )
    assert {"success_ours", "success_literal", "success_random"} <= set(said)
