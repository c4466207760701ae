"""What `erase attack` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.search import experiment
from erase.attacks.search.experiment import Plan
from erase.attacks.search.result import AttackResult, Attempt, Rate
from erase.cli.attack import show
from erase.methods.uce import UCE
from erase.models import open_model
from erase.task import Target, Task
from tests.recipes import command


def _result(searches: int) -> AttackResult:
    attempts = [
        Attempt(f"prompt {number}", 0, False, number < 4, number == 0, False, False, 9, 1, search=number % searches)
        for number in range(8)
    ]
    return AttackResult("gcg", tuple(attempts), Rate.of([True], ["a"]), 300, {"against": "random_prefix"})


def test_each_search_is_told_beside_its_control(capsys: pytest.CaptureFixture[str]) -> None:
    show(_result(2), Path("out"))
    said = capsys.readouterr().out
    assert "each search (its control)        50 (25), 50 (0) %" in said
    assert "8 prompts are few" in said


def test_the_number_of_searches_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[Plan] = []

    def noted(*of: object, plan: Plan, **what: object) -> AttackResult:
        plans.append(plan)
        return _result(2)

    monkeypatch.setattr(experiment, "run_attack", noted)
    model = open_model("emoji")
    UCE()(model, Task([Target("noto", "style", anchor="fluent")])).save(file := tmp_path / "Ägypten stil.safetensors")
    for more in ((), ("--searches", 2)):
        said = command(capsys, "attack", file, "--out", tmp_path / "out", *more)
        assert (said.code, said.errors.count("error")) == (0, 0)
    assert [plan.searches for plan in plans] == [None, 2]


def test_one_search_has_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    show(_result(1), Path("out"))
    assert "each search" not in capsys.readouterr().out
