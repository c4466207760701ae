"""A run whose method trains: it tells how far it is, goes on after a kill, and leaves its bank to the next run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase.context import RunContext
from erase.edit import Edit
from erase.methods.esd import ESD
from erase.run import steps
from erase.run.options import make_edit
from erase.run.pipeline import load_pipeline, resolve
from erase.run.store import Run, run_in
from tests.recipes import tiny_recipe, write_recipe

OPTIONS = {"steps": 4, "trajectories": 2, "sampling_steps": 3, "learning_rate": 1e-3}


class Counted:
    """Remembers what it was told, and stops the process where asked."""

    def __init__(self, stop: int = 0) -> None:
        self.told: list[tuple[str, int, int, str]] = []
        self.notes: list[str] = []
        self.stop = stop

    def begin(self, step: str, text: str) -> None:
        pass

    def count(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        self.told.append((text, done, total, unit))
        self.notes.append(note)
        if self.stop and unit == "steps" and done == self.stop:
            raise KeyboardInterrupt


def run_of(folder: Path, model: Path, name: str) -> Run:
    recipe: dict[str, Any] = tiny_recipe(folder, model) | {"edit": {"method": "esd", "options": OPTIONS}}
    run = run_in(resolve(load_pipeline(str(write_recipe(folder, recipe)))), folder / "runs" / name)
    run.begin()
    return run


def test_a_run_tells_its_bank_and_its_steps_with_their_loss(tiny_model: Path, tmp_path: Path) -> None:
    watch, run = Counted(), run_of(tmp_path, tiny_model, "one")
    steps.do("edit", run, watch)
    assert watch.told[0] == ("bank", 0, 2, "trajectories")
    assert watch.told[-4:] == [("training", done, 4, "steps") for done in (1, 2, 3, 4)]
    assert watch.notes[-1].startswith("loss ")
    assert Edit.load(run.edit_file).info.method == "esd"
    assert {path.name for path in (run.folder / "training").iterdir()} == {"loss.png", "losses.json", "cost.json"}


def test_the_next_run_finds_the_bank(tiny_model: Path, tmp_path: Path) -> None:
    costs = []
    for name in ("one", "two"):
        run = run_of(tmp_path, tiny_model, name)
        steps.do("edit", run, Counted())
        costs.append(json.loads((run.folder / "training/cost.json").read_text(encoding="utf-8"))["evaluations"])
    assert costs == [2 * 3 * 2 + 4 * 3 + 16, 4 * 3 + 16]  # 16 tell what the training did to the network
    edits = [(tmp_path / f"runs/{name}/edit.safetensors").read_bytes() for name in ("one", "two")]
    assert edits[0] == edits[1]


def test_a_run_that_was_killed_goes_on_and_ends_in_the_same_edit(tiny_model: Path, tmp_path: Path) -> None:
    whole = run_of(tmp_path, tiny_model, "whole")
    steps.do("edit", whole, Counted())
    killed = run_of(tmp_path, tiny_model, "killed")
    # checkpoints at every step, where a run takes one a minute
    eager = RunContext(killed.folder / "training", killed.folder.parent / "banks", report=Counted(3).count, seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        make_edit(ESD(**OPTIONS), killed.model, killed.task, work=eager)
    assert not killed.edit_file.exists()
    watch = Counted()
    steps.do("edit", killed, watch)
    assert [done for text, done, _, _ in watch.told if text == "training"] == [3, 4]
    assert killed.edit_file.read_bytes() == whole.edit_file.read_bytes()
    assert not (killed.folder / "training/checkpoint.safetensors").exists()
