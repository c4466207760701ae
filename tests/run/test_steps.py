"""A run's steps: each once, each on what the one before left, all of them again from where a killed run stopped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from erase.edit import Edit
from erase.errors import BadEdit, GateFailed, ModelMismatch, RunConflict, ScoreFailed
from erase.run import steps
from erase.run.pipeline import GateForm, load_pipeline, resolve
from erase.run.store import Run, run_in
from tests.finished import Seen, rejudged, run_of, stamps, touched
from tests.recipes import contents, write_recipe
from tests.tiny import tiny_stable_diffusion
from tests.tiny_edits import tiny_edit


def test_scoring_while_images_are_made_gives_the_scores_of_scoring_at_the_end_bit_for_bit(
    finished: Run, run: Run
) -> None:
    assert run.judging is not finished.judging
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
    monkeypatch.setattr("erase.evaluate.detectors.classifier.load_network", None)  # none is loaded any more
    monkeypatch.setattr("erase.evaluate.networks.clip.ClipFolder.batch", None)
    steps.do("score", run, Seen())
    assert run.scores_file.is_file()


def test_a_run_leaves_every_result(finished: Run) -> None:
    rows = finished.recipe.make_rows()
    assert set(steps.results(finished)) == {"grid", "report", "result", "scores", "edit", "model"}
    assert len(list(finished.images("before").iterdir())) == len(list(finished.images("after").iterdir())) == len(rows)
    names = {figure.name for figure in steps.read_scores(finished).figures}
    assert {"ua", "ira", "cra", "clip"} <= names


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
    run.result_file.unlink()
    before, seen = stamps(run.folder), Seen()
    assert steps.do_all(run, seen)
    assert seen.begun == ["score", "grid", "report", "export"]
    reported = {"report.html", "report.json", "figures.csv", "images.csv"}
    assert touched(run, before) == {"result.json", "scores.json", "grid.png", *reported}
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
    (run.folder / "model" / "thesis.txt").write_text("precious", encoding="utf-8")
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
    run.scores_file.write_text("{", encoding="utf-8")
    with pytest.raises(ScoreFailed, match="damaged; run `erase score"):
        steps.read_scores(run)


def test_a_gate_names_every_question_whose_images_do_not_prove_its_limit(run: Run) -> None:
    steps.check_gate(run)  # which has no gate
    gated = Run(run.folder, run.recipe.model_copy(update={"gate": GateForm()}))
    rejudged(run, lambda one: replace(one, before=True, after=one.role == "kept", distance=0.1))
    with pytest.raises(GateFailed, match=r"too few images to tell: gone: its own prompts is 100.0% of \d+ images"):
        steps.check_gate(gated)
    rejudged(run, lambda one: replace(one, before=True, after=one.role == "erased", distance=0.1))
    with pytest.raises(GateFailed, match="model destroyed: only 0 of"):
        steps.check_gate(gated)


def test_a_style_that_the_judge_does_not_know_is_told_before_anything_is_written(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("prompt,seed,style\na cat in monet style,0,monet\n", encoding="utf-8")
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
