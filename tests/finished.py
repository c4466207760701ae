"""A finished run of a tiny model, and what a test asks of its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from erase.evaluate.gate import Outcome
from erase.evaluate.result import judged, limits_of, outcomes_of, read_result, write_result
from erase.run import steps
from erase.run.pipeline import load_pipeline, resolve
from erase.run.store import Run, run_in
from tests.recipes import tiny_recipe, write_recipe

Stamps = dict[str, tuple[int, int]]


@dataclass
class Seen:
    """A watch that keeps what it is told, and may raise after so many images."""

    stop_after: int = -1
    begun: list[str] = field(default_factory=list)
    counts: list[tuple[str, int, int]] = field(default_factory=list)

    def begin(self, step: str, text: str) -> None:
        self.begun.append(step)

    def count(self, text: str, done: int, total: int) -> None:
        self.counts.append((text, done, total))
        if len(self.counts) == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def recipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_recipe(tmp_path_factory.mktemp("recipe"), tiny_model)


def run_of(recipe: dict[str, Any], place: Path) -> Run:
    """A run of the recipe, begun in a folder of `place`."""
    place.mkdir(exist_ok=True)
    run = run_in(resolve(load_pipeline(str(write_recipe(place, recipe)))), place / "run")
    run.begin()
    return run


@pytest.fixture(scope="module")
def finished(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was done in one go; do not change it."""
    run = run_of(recipe, tmp_path_factory.mktemp("finished"))
    assert steps.do_all(run, Seen())
    return run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run that a test may change."""
    return Run(Path(shutil.copytree(finished.folder, tmp_path / "run")), finished.recipe)


def rejudged(run: Run, change: Callable[[Outcome], Outcome]) -> None:
    """Puts other outcomes into a run's result, as if the judge had seen them."""
    told = read_result(run.result_file)
    images = [one["images"] for one in told["outcomes"]]
    outcomes = [change(one) for one in outcomes_of(told)]
    verdict = judged(outcomes, limits_of(told), ())
    told |= {"outcomes": [asdict(one) | {"images": of} for one, of in zip(outcomes, images, strict=True)]}
    made = {"exit_code", "reasons", "checks", "unscored"}
    write_result(run.folder, {k: told[k] for k in told if k not in made}, verdict, outcomes=outcomes)


def stamps(folder: Path) -> Stamps:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_ino) for p in files}


def touched(run: Run, before: Stamps) -> set[str]:
    """First parts of the paths that were written since."""
    return {Path(name).parts[0] for name, stamp in stamps(run.folder).items() if before.get(name) != stamp}
