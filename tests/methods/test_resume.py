"""Every trained method that is stopped goes on where it stopped, and ends in the edit of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from erase import registry
from erase.context import RunContext
from erase.edit import Edit
from erase.methods.training.trainer import Trained
from erase.models import Model
from tests.methods.trained import STYLE
from tests.recipes import tiny_recipe, write_recipe

ROOT = Path(__file__).parents[2]
TRAINED = [name for name in registry.known("methods") if issubclass(registry.load("methods", name), Trained)]  # type: ignore[arg-type]
SMALL = {"steps": 5, "batch": 2, "trajectories": 2, "sampling_steps": 3, "learning_rate": 1e-3, "refresh": 2}
SMALL |= {"decay": 0.5, "warm_up": 1, "attack_steps": 2, "keep_batch": 2, "keep_trajectories": 2, "gradient_clip": 0.1}


def method_of(name: str, **more: Any) -> Any:
    build: Any = registry.load("methods", name)
    known = {field.name for field in fields(build)}
    return build(**{key: value for key, value in (SMALL | more).items() if key in known})


class Stop:
    """Stops the process once so much is done."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at
        self.seen: list[tuple[str, int]] = []

    def __call__(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        self.seen.append((text, done))
        if (text, done) == (self.text, self.at):
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_that_was_stopped_ends_in_the_same_edit(name: str, model: Model, tmp_path: Path) -> None:
    method = method_of(name)
    whole: Edit = method(model, STYLE)
    stop, go_on = Stop("training", 4), Stop("", 0)
    with pytest.raises(KeyboardInterrupt):
        method(model, STYLE, work=RunContext(tmp_path, tmp_path, report=stop, seconds=0.0))
    assert (tmp_path / "checkpoint.safetensors").is_file()
    again: Edit = method(model, STYLE, work=RunContext(tmp_path, tmp_path, report=go_on))
    # Told before it was saved, the step at which it stopped is done once more.
    assert [done for text, done in go_on.seen if text == "training"] == [4, 5]
    assert again.content == whole.content


@pytest.mark.parametrize("name", TRAINED)
def test_a_bank_that_was_stopped_half_way_ends_in_the_same_edit(name: str, model: Model, tmp_path: Path) -> None:
    method = method_of(name, sampling_batch=1)
    whole: Edit = method(model, STYLE)
    with pytest.raises(KeyboardInterrupt):
        method(model, STYLE, work=RunContext(tmp_path, tmp_path, report=Stop("bank", 1)))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("bank-*/*.safetensors")}
    assert len(files) == 1
    again: Edit = method(model, STYLE, work=RunContext(tmp_path, tmp_path))
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert again.content == whole.content


@pytest.mark.slow
@pytest.mark.parametrize("name", ["esd", "sdd"])
def test_a_run_that_was_killed_outright_ends_in_the_same_edit(name: str, tiny_model: Path, tmp_path: Path) -> None:
    options = {"steps": 400, "trajectories": 2, "sampling_steps": 3, "learning_rate": 1e-4}
    recipe: dict[str, Any] = tiny_recipe(tmp_path, tiny_model) | {"edit": {"method": name, "options": options}}
    path = write_recipe(tmp_path, recipe)
    # A checkpoint at every step, where a run takes one a minute.
    eager = "import erase.context as work, sys; work.Work.seconds = 0.0; work.Work.__init__.__defaults__ = "
    eager += "tuple(0.0 if value == 60.0 else value for value in work.Work.__init__.__defaults__); "
    eager += "from erase.cli import run_command; sys.exit(run_command(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def command(folder: str) -> list[str]:
        return [sys.executable, "-c", eager, "edit", str(path), "--out", str(tmp_path / folder)]

    subprocess.run(command("whole"), env=environment, check=True, capture_output=True)
    process = subprocess.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint, until = tmp_path / "killed/training/checkpoint.safetensors", time.monotonic() + 120
    while not checkpoint.is_file():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed/edit.safetensors").exists()
    subprocess.run(command("killed"), env=environment, check=True, capture_output=True)
    edits = [(tmp_path / folder / "edit.safetensors").read_bytes() for folder in ("whole", "killed")]
    assert edits[0] == edits[1]
    assert not checkpoint.exists()
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["edit"]["method"] == name
