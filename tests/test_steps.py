"""A run's steps: each once, each on what the one before left, all of them again from where a killed run stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from erase import steps
from erase.edit import Edit
from erase.errors import BadEdit, GateFailed, ModelMismatch, RunConflict, ScoreFailed
from erase.pipeline import load_pipeline, resolve
from erase.runs import Run, run_in
from tests.recipes import contents, tiny_recipe, write_recipe
from tests.tiny import tiny_stable_diffusion
from tests.tiny_edits import tiny_edit

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


def stamps(folder: Path) -> Stamps:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_ino) for p in files}


def touched(run: Run, before: Stamps) -> set[str]:
    """First parts of the paths that were written since."""
    return {Path(name).parts[0] for name, stamp in stamps(run.folder).items() if before.get(name) != stamp}


def test_scoring_while_images_are_made_gives_the_scores_of_scoring_at_the_end_bit_for_bit(
    finished: Run, run: Run
) -> None:
    assert run.readings is not finished.readings
    run.scores_file.unlink()
    steps.do("score", run, Seen())
    assert run.scores_file.read_bytes() == finished.scores_file.read_bytes()


def test_a_grid_and_a_report_of_earlier_scores_are_made_anew(run: Run) -> None:
    assert steps.refresh(run, Seen()) == ()
    steps.do("score", run, Seen())
    before = stamps(run.folder)
    assert steps.refresh(run, Seen()) == ("grid", "report")
    assert {"grid.png", "report.html"} <= touched(run, before)
    assert not steps.do_all(run, Seen())
    steps.do("score", run, Seen())
    watch = Seen()
    assert steps.do_all(run, watch)
    assert watch.begun == ["grid", "report", "export"]


def test_what_is_not_there_is_not_refreshed(run: Run) -> None:
    run.grid_file.unlink()
    run.report_file.unlink()
    steps.do("score", run, Seen())
    assert steps.refresh(run, Seen()) == ()


def test_the_judge_has_read_the_images_before_they_are_scored(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(recipe, tmp_path)
    steps.do("edit", run, Seen())
    steps.do("generate", run, Seen())
    monkeypatch.setattr("erase.evaluate.readings.load_classifier", None)  # none is loaded any more
    monkeypatch.setattr("erase.evaluate._clip.ClipTowers.batch", None)
    steps.do("score", run, Seen())
    assert run.scores_file.is_file()


def test_a_run_leaves_every_result(finished: Run) -> None:
    rows = finished.recipe.make_rows()
    assert set(steps.results(finished)) == {"grid", "report", "scores", "edit", "model"}
    assert len(list(finished.images("before").iterdir())) == len(list(finished.images("after").iterdir())) == len(rows)
    names = {figure.name for figure in steps.read_scores(finished).figures}
    assert {"ua", "ira", "cra", "clip", "clip_accuracy"} <= names


def test_a_finished_run_does_nothing_twice(run: Run) -> None:
    before, seen = stamps(run.folder), Seen()
    assert steps.do_all(run, seen) is False
    assert seen.begun == []
    assert stamps(run.folder) == before


@pytest.mark.parametrize("stop_after", [3, 12])
def test_a_run_that_was_killed_ends_as_one_that_was_not(
    recipe: dict[str, Any], finished: Run, tmp_path: Path, stop_after: int
) -> None:
    run = run_of(recipe, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        steps.do_all(run, Seen(stop_after))
    before = {name: stamp for name, stamp in stamps(run.folder).items() if name.endswith(".png")}
    assert before
    assert not run.plan_file.exists()
    seen = Seen()
    assert steps.do_all(run, seen)
    assert seen.begun == ["generate", "score", "grid", "report", "export"]
    assert before.items() <= stamps(run.folder).items()
    assert contents(run.folder) == contents(finished.folder)


def test_a_missing_result_is_made_again_with_all_that_rests_on_it_and_nothing_else(run: Run, finished: Run) -> None:
    run.scores_file.unlink()
    before, seen = stamps(run.folder), Seen()
    assert steps.do_all(run, seen)
    assert seen.begun == ["score", "grid", "report", "export"]
    reported = {"report.html", "report.json", "figures.csv", "images.csv"}
    assert touched(run, before) == {"scores.json", "grid.png", *reported}
    assert contents(run.folder) == contents(finished.folder)


def test_a_missing_image_is_made_again_and_only_that(run: Run, finished: Run) -> None:
    next(run.images("after").iterdir()).unlink()
    before = stamps(run.folder)
    assert steps.do_all(run, Seen())
    new = {name for name, stamp in stamps(run.folder).items() if before.get(name) != stamp and name.startswith("after")}
    assert len(new) == 1
    assert contents(run.folder) == contents(finished.folder)


def test_a_model_folder_of_another_strength_is_not_taken_for_the_runs(run: Run, finished: Run) -> None:
    shutil.rmtree(run.folder / "model")
    steps.export("folder", run.model, steps.load_edit(run).scaled(0.5), target=run.folder / "model")
    seen = Seen()
    assert steps.do_all(run, seen)
    assert seen.begun == ["export"]
    assert contents(run.folder) == contents(finished.folder)


def test_an_earlier_export_is_put_back_where_a_new_one_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps.load_edit(run).scaled(0.5).save(run.edit_file)
    before = contents(run.folder)

    def fail(name: str, model: object, edit: Edit, *, target: Path, options: object) -> Path:
        assert not target.exists()
        raise OSError("the disk is on fire")

    monkeypatch.setattr(steps, "export", fail)
    with pytest.raises(OSError, match="on fire"):
        steps.do("export", run, Seen())
    assert contents(run.folder) == before


def test_a_folder_that_is_no_export_of_ours_is_kept(run: Run) -> None:
    shutil.rmtree(run.folder / "model")
    (run.folder / "model").mkdir()
    (run.folder / "model" / "thesis.txt").write_text("precious")
    with pytest.raises(RunConflict, match="exists already"):
        steps.do_all(run, Seen())
    assert contents(run.folder / "model") == {"thesis.txt": b"precious"}


def test_an_edit_of_another_model_makes_no_images(run: Run, tmp_path: Path) -> None:
    from erase.models import open_model

    tiny_edit(open_model(tiny_stable_diffusion(tmp_path / "other", seed=1))).save(run.edit_file)
    before = contents(run.folder)
    with pytest.raises(ModelMismatch):
        steps.do("generate", run, Seen())
    assert contents(run.folder) == before


def test_a_step_without_what_it_rests_on_says_what_to_do(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = run_of(recipe, tmp_path)
    with pytest.raises(BadEdit, match="has no edit yet"):
        steps.do("generate", run, Seen())
    with pytest.raises(ScoreFailed, match="has no scores yet; run `erase score"):
        steps.read_scores(run)
    run.scores_file.write_text("{")
    with pytest.raises(ScoreFailed, match="is damaged"):
        steps.read_scores(run)


def test_a_gate_holds_at_its_bound_and_names_every_figure_below_it(run: Run) -> None:
    value = json.loads(run.scores_file.read_text())
    for figure in value["figures"]:
        if figure["side"] == "after":
            figure["value"] = {"ua": 0.5, "ira": 0.25}.get(figure["name"], figure["value"])
    value["figures"] = [figure for figure in value["figures"] if figure["name"] != "cra"]
    run.scores_file.write_text(json.dumps(value))

    def gated(**bounds: float) -> Run:
        gate = run.recipe.gate.model_copy(update=bounds)
        return Run(run.folder, run.recipe.model_copy(update={"gate": gate}))

    steps.check_gate(gated())
    steps.check_gate(gated(ua=0.5))
    with pytest.raises(GateFailed, match=r"ua is 0\.500, at least 0\.51.*ira is 0\.250.*cra is not measured"):
        steps.check_gate(gated(ua=0.51, ira=0.3, cra=0.1))


def test_a_figure_that_is_no_number_fails_the_gate(run: Run) -> None:
    value = json.loads(run.scores_file.read_text())
    value["figures"] = [figure | {"name": "ua", "value": float("nan")} for figure in value["figures"]]
    run.scores_file.write_text(json.dumps(value))
    gate = run.recipe.gate.model_copy(update={"ua": 0.0})
    with pytest.raises(GateFailed, match="ua is nan"):
        steps.check_gate(Run(run.folder, run.recipe.model_copy(update={"gate": gate})))


def test_a_style_that_the_judge_does_not_know_is_told_before_anything_is_written(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("prompt,seed,style\na cat in monet style,0,monet\n")
    task = {"kind": "style", "targets": [{"name": "monet", "anchor": "blob"}]}
    generate = recipe["generate"] | {"prompts": str(tmp_path / "rows.csv")}
    written = write_recipe(tmp_path, recipe | {"task": task, "generate": generate})
    run = run_in(resolve(load_pipeline(str(written))), tmp_path / "run")
    with pytest.raises(ScoreFailed, match='style label "monet" does not exist'):
        steps.check(run)
    assert not run.folder.exists()


def test_a_model_without_a_judge_runs_without_scores(recipe: dict[str, Any], tiny_copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(tiny_copy / "judge")
    recipe = recipe | {"model": str(tiny_copy)}
    scored = run_in(resolve(load_pipeline(str(write_recipe(tmp_path, recipe)))), tmp_path / "scored")
    with pytest.raises(ScoreFailed, match="comes without a judge"):
        steps.check(scored)
    run = run_of(recipe | {"score": []}, tmp_path / "place")
    steps.check(run)
    assert steps.do_all(run, Seen())
    assert set(steps.results(run)) == {"grid", "report", "edit", "model"}
    assert not steps.do_all(run, Seen())
