"""The README keeps its word: its commands run, its Python runs, its pipeline is one, its pictures are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from erase.run import steps
from erase.run.pipeline import load_pipeline, resolve
from erase.run.store import Run
from tests.recipes import command, contents

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SLOW = ("erase run erase-mono", "erase run erase-object", "erase run erase-unsafe")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every `erase ...` line of the README's plain blocks, without its comment, in order."""
    lines = [
        part.partition("#")[0].strip()
        for block in blocks("")
        for line in block.splitlines()
        for part in line.split("&&")
    ]
    return list(dict.fromkeys(line for line in lines if line.startswith("erase ")))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_commands_run_one_after_the_other(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    fast = [line for line in commands() if line not in SLOW]
    assert "erase run" in fast
    assert len(fast) >= 4
    for line in fast:
        said = command(capsys, *shlex.split(line)[1:])
        assert said.code == 0, f"{line}: {said.errors}"
    run = place / "runs/erase-style"
    assert {"grid.png", "scores.json", "edit.safetensors", "recipe.yaml", "model/manifest.json"} <= set(contents(run))
    assert "nothing was left to do" in command(capsys, "run").out


@pytest.mark.slow
@pytest.mark.parametrize("line", SLOW)
def test_its_longer_commands_run(capsys: pytest.CaptureFixture[str], line: str) -> None:
    assert line in commands()
    assert command(capsys, *shlex.split(line)[1:]).code == 0


def test_its_python_runs(place: Path) -> None:
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    with Image.open(place / "erased.png") as image:
        assert image.size == (64, 64)
    assert (place / "half.safetensors").is_file()


def test_its_pipeline_is_one(place: Path) -> None:
    (text,) = blocks("yaml")
    (place / "mine.yaml").write_text(text, encoding="utf-8")
    recipe = resolve(load_pipeline("mine.yaml"))
    steps.check(Run(place / "runs/mine", recipe))
    assert recipe.gate.bounds == {"ua": 0.8, "ira": 0.8, "cra": 0.8}


def test_its_links_and_pictures_are_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
