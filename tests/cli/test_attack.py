"""What `erase attack` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.attacks.search.result import AttackResult, Attempt, Rate
from erase.cli.attack import show


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


def test_one_search_has_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    show(_result(1), Path("out"))
    assert "each search" not in capsys.readouterr().out
