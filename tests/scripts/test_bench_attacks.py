"""The published loop that attacks are timed against: words on a simplex, drawn straight through."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from erase.attacks.random_prefix import RandomPrefix
from erase.config.prompts import Row
from tests.attacks.setting import erased

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])


def test_rows_are_projected_to_the_nearest_point_of_the_simplex() -> None:
    from published_attack import simplex

    rows = torch.randn(4, 7, generator=torch.Generator().manual_seed(1)).double()
    found = simplex(rows)
    assert torch.allclose(found.sum(-1), torch.ones(4).double())
    assert (found >= 0).all()
    for row, point in zip(rows, found, strict=True):  # the conditions of the minimum: one shift for all that are left
        shifts = (row - point)[point > 0]
        assert torch.allclose(shifts, shifts[0].expand_as(shifts))
        assert (row[point == 0] <= shifts[0] + 1e-12).all()


def test_one_word_is_drawn_and_its_probabilities_get_the_clipped_gradient() -> None:
    from published_attack import straight_through

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

    monkeypatch.setattr(bench, "edit_of", lambda model, method, options: erased())
    monkeypatch.setattr(bench, "Literal", partial(bench.Literal, inner=2))
    flags = ["--prompts", "3", "--budget", "90", "--steps", "4", "--times", "2", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench_attacks.py", "--quick", *flags])
    bench.main()
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = {"evaluations_ratio", "interval", "success_ours", "success_literal", "success_random"}
    assert figures <= set(said)
    sides = said["edits"]["uce"]
    assert sides["n"] > 0
    last = sides["curves"]["literal"][-1]
    assert 0 < sides["literal"][0] <= last[0] + 0.1
    assert sides["literal"][1] == pytest.approx(last[1], abs=1e-3)
    assert all(0 < spent <= 90 for spent, _ in sides["curves"]["ours"])


def test_the_ratio_is_taken_where_ours_first_has_the_success_of_the_published_loop() -> None:
    from bench_attacks import Search, ratio_of

    # of two prompts the published loop has one after 300 evaluations, when the other has spent 400 and goes on for
    # nothing, which is not counted; ours has it after 100, and then the other one
    literal = Search([[100, 100], [200, 200], [300, 400], [300, 900]], [[1, 1], [2, 2], [3, 4], [3, 9]], [1.0, 0.0])
    ours = Search([[50, 50], [100, 100], [100, 300]], [[1, 1], [2, 2], [2, 4]], [1.0, 1.0])
    every = torch.arange(2)
    assert ratio_of([{"ours": [ours], "literal": [literal]}], [every], stop=50) == pytest.approx(350 / 100)
    never = Search(ours.spent, ours.images, [0.4, 0.4])
    assert ratio_of([{"ours": [never], "literal": [literal]}], [every], stop=50) is None
    assert ratio_of([{"ours": [ours], "literal": [literal]}], [every], stop=1) is None  # no success to be equal to


def test_random_words_that_took_more_images_than_ours_until_there_count_by_evaluations_alone() -> None:
    from bench_attacks import Search, by_chance

    ours = Search([[60, 60], [120, 120], [120, 400]], [[1, 1], [2, 3], [2, 9]], [1.0, 0.0])
    chance = Search([[60, 60]], [[3, 3]], [1.0, 0.5])
    sides = {"ours": [ours], "random": [chance], "literal": []}
    assert by_chance(sides, 60.0) == (0.0, 0.75)
    assert by_chance(sides, 120.0) == (0.25, 0.75)


def test_a_search_is_made_again_when_its_attacks_module_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import bench_attacks as bench

    module, made = tmp_path / "attack.py", list[str]()

    def searched(*given: object, **more: object) -> bench.Search:
        made.append(module.read_text(encoding="utf-8"))
        return bench.Search([[20]], [[1]], [0.0])

    monkeypatch.setattr(bench.inspect, "getfile", lambda kind: str(module))
    monkeypatch.setattr(bench, "searched", searched)
    victim, cases = SimpleNamespace(edited=SimpleNamespace(edit=None)), [SimpleNamespace(row=Row("a cat", 0))]
    for text in ("one", "one", "two"):
        module.write_text(text, encoding="utf-8")
        options = Namespace(folder=tmp_path, budget=20, steps=4)
        bench.kept(RandomPrefix(), victim, cases, options=options, seed=0)
    assert made == ["one", "two"]
