"""A run goes on by another recipe where its images stay the same, and makes again only what is otherwise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from erase.errors import RunConflict
from erase.evaluate.result import read_result
from erase.run import steps
from erase.run.identity import KEYS, changed_steps, identities
from erase.run.pipeline import Pipeline, VerifyForm, load_pipeline, read_pipeline, resolve
from erase.run.store import Run, run_in
from tests.finished import Seen, stamps
from tests.recipes import write_recipe

PICTURES = ("before", "after")


def begun(finished: Run, recipe: dict[str, Any], place: Path, **changes: Any) -> Run:
    """A copy of the finished run, taken up again by another recipe."""
    shutil.copytree(finished.folder, place / "run")
    return run_in(resolve(load_pipeline(str(write_recipe(place, recipe | changes)))), place / "run")


@pytest.mark.parametrize(
    ("changes", "redone"),
    [
        ({"grid": {"columns": 3}}, ["grid", "report", "export"]),
        ({"export": ["patch", "folder", "lora"]}, ["report", "export"]),
        ({"gate": {"ua": 0.5}}, ["score", "grid", "report", "export"]),
        ({"name": "other", "description": "another"}, []),
    ],
)
def test_another_grid_export_or_gate_makes_no_image_anew(
    finished: Run, recipe: dict[str, Any], tmp_path: Path, changes: dict[str, Any], redone: list[str]
) -> None:
    run = begun(finished, recipe, tmp_path, **changes)
    before, watch = stamps(run.folder), Seen()
    assert not all(steps.is_done(name, run) for name in redone) or not redone
    run.begin()
    steps.do_all(run, watch)
    assert watch.begun == redone
    assert watch.counts == []
    after = stamps(run.folder)
    assert {name: after[name] for name in before if name.startswith(PICTURES) or name == "edit.safetensors"} == {
        name: stamp for name, stamp in before.items() if name.startswith(PICTURES) or name == "edit.safetensors"
    }
    assert read_pipeline(run.recipe_file).hash == run.recipe.hash
    assert all(steps.is_done(name, run) for name, step in steps.STEPS.items() if step.is_asked(run.recipe))
    assert not steps.do_all(Run(run.folder, run.recipe), Seen())


def test_a_run_killed_while_it_was_taken_up_by_another_recipe_leaves_no_result_of_the_first(
    finished: Run, recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = begun(finished, recipe, tmp_path, gate={"ua": 0.5})
    run.begin()  # and is killed
    again = Run(run.folder, run.recipe)
    assert again.stale == ()
    assert not steps.is_done("score", again)
    steps.do_all(again, Seen())
    assert read_result(again.result_file)["limits"]["gone"] == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"edit": {"method": "uce", "strength": 0.5}}, "its edit and its images would be made again"),
        ({"task": {"kind": "style", "targets": [{"name": "noto"}]}}, "its edit and its images would be made again"),
        ({"generate": {"seeds": [0, 1]}}, "its images would be made again"),
        ({"generate": {"steps": 3}}, "its images would be made again"),
    ],
)
def test_another_edit_or_other_images_are_refused_with_what_they_would_do_anew(
    finished: Run, recipe: dict[str, Any], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    changed = {key: recipe[key] | part if key == "generate" else part for key, part in changes.items()}
    with pytest.raises(RunConflict, match=said):
        begun(finished, recipe, tmp_path, **changed)


def test_every_key_of_a_recipe_belongs_to_a_step_but_those_that_change_nothing() -> None:
    read = {key.partition(".")[0] for keys in KEYS.values() for key in keys}
    assert set(Pipeline.model_fields) - read == {"name", "description", "hash"}
    assert {f"verify.{one.alias or name}" for name, one in VerifyForm.model_fields.items()} <= {
        key for keys in KEYS.values() for key in keys
    }


def test_an_export_with_other_options_is_written_anew_and_one_of_another_stays(
    finished: Run, recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = begun(finished, recipe, tmp_path, export_options={"folder": {"dtype": "float16"}})
    before = stamps(run.folder / "model")
    run.begin()
    assert not (run.folder / "model").exists()
    watch = Seen()
    assert steps.do_all(run, watch)
    assert watch.begun == ["report", "export"]
    assert stamps(run.folder / "model") != before


def test_each_steps_identity_holds_those_that_it_rests_on(finished: Run) -> None:
    recipe = finished.recipe
    other = recipe.model_copy(update={"edit": recipe.edit.model_copy(update={"strength": 2.0})})
    assert changed_steps(recipe, other) == tuple(KEYS)
    faster = recipe.model_copy(update={"generate": recipe.generate.model_copy(update={"batch": 1})})
    assert identities(faster) == identities(recipe)
    assert read_result(finished.result_file)["hashes"]["steps"] == {
        name: identities(recipe)[name] for name in ("edit", "generate", "score")
    }
