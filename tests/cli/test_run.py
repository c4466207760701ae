"""`erase run` and the steps by themselves: what they say, and that they leave the same results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.recipes import command, contents, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tiny_recipe(tmp_path, tiny_model)


def test_a_run_says_what_it_erased_and_where_all_lies_and_a_second_that_it_was_finished(
    capsys: Capture, recipe: dict[str, Any], tmp_path: Path
) -> None:
    file = write_recipe(tmp_path, recipe)
    first = command(capsys, "run", file)
    assert first.code == 0
    assert "mine finished in" in first.out
    assert "noto → blob" in first.out
    assert "UA not measured: the base model itself shows the target in only" in first.out
    assert "erase export runs/mine" in first.out
    for name in ("grid.png", "report.html", "scores.json", "edit.safetensors", "model"):
        assert f"runs/mine/{name}" in first.out
        assert (tmp_path / "runs/mine" / name).exists()
    for step in ("edit", "generate", "score", "grid", "report", "export"):
        assert step in first.errors
    before = contents(tmp_path / "runs")
    second = command(capsys, "run", file)
    assert second.code == 0
    assert "was finished already; nothing was left to do" in second.out
    assert second.errors == ""
    assert contents(tmp_path / "runs") == before


def test_the_steps_one_by_one_leave_what_the_whole_run_leaves(
    capsys: Capture, recipe: dict[str, Any], tmp_path: Path
) -> None:
    file = write_recipe(tmp_path, recipe)
    assert command(capsys, "run", file, "--out", "whole").code == 0
    assert command(capsys, "edit", file, "--out", "steps").out.strip() == "edit  steps/edit.safetensors"
    assert "has no images yet" in refused(capsys, "score", "steps")
    for step in ("generate", "score", "grid", "report"):
        assert command(capsys, step, "steps").code == 0
    said = command(capsys, "export", "steps")
    assert said.out.strip() == "folder  steps/model"
    assert contents(tmp_path / "steps") == contents(tmp_path / "whole")
    with Image.open("steps/grid.png") as grid:
        assert len(grid.convert("RGB").getcolors(grid.width * grid.height) or []) > 100


def test_a_gate_that_fails_is_told_by_scoring_alone_too(
    capsys: Capture, recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe = recipe | {"gate": {"ira": 1.0}, "export": [], "grid": None}
    file = write_recipe(tmp_path, recipe)
    line = refused(capsys, "run", file, code=3)
    assert "nothing changed: 2 of 2 images of the target are as before the edit" in line
    assert refused(capsys, "score", "mine", code=3) == line
