"""`erase report` and `erase compare` on real runs of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.recipes import command, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tiny_recipe(tmp_path, tiny_model) | {"export": [], "grid": None}


def test_a_run_leaves_its_report_which_is_written_anew_the_same(
    capsys: Capture, recipe: dict[str, Any], tmp_path: Path
) -> None:
    assert command(capsys, "run", write_recipe(tmp_path, recipe)).code == 0
    names = ("report.html", "report.json", "figures.csv", "images.csv")
    first = {name: (tmp_path / "runs/mine" / name).read_bytes() for name in names}
    assert first["report.html"].count(b'class="pair"') == 8
    for name in names:
        (tmp_path / "runs/mine" / name).unlink()
    said = command(capsys, "report", "mine")
    assert said.out.strip() == "report  runs/mine/report.html"
    assert {name: (tmp_path / "runs/mine" / name).read_bytes() for name in names} == first


def test_two_strengths_are_compared_on_the_same_images_before(
    capsys: Capture, recipe: dict[str, Any], tmp_path: Path
) -> None:
    for name, strength in (("weak", 0.2), ("full", 1.0)):
        edit = recipe["edit"] | {"strength": strength}
        assert command(capsys, "run", write_recipe(tmp_path, recipe | {"edit": edit}), "--out", name).code == 0
    said = command(capsys, "compare", "weak", "full", "--out", "both.html")
    assert said.code == 0
    assert "clean UA, targets no longer seen" in said.out
    assert said.out.splitlines()[-1] == "compare  both.html"
    value = json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))
    assert [run["edit"]["strength"] for run in value["runs"].values()] == [0.2, 1.0]
    assert value["caution"] == ""
    assert (tmp_path / "both.html").is_file()
    assert "at least two" in refused(capsys, "compare", "weak", tmp_path / "weak")


def test_runs_of_other_seeds_are_not_compared(capsys: Capture, recipe: dict[str, Any], tmp_path: Path) -> None:
    for seed in (0, 1):
        generate = recipe["generate"] | {"seeds": [seed]}
        file = write_recipe(tmp_path, recipe | {"generate": generate, "score": []})
        assert command(capsys, "run", file, "--out", f"seed{seed}").code == 0
    assert "seed0 and seed1 have different images" in refused(capsys, "compare", "seed0", "seed1")
    assert not (tmp_path / "compare.html").exists()
