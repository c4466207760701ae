"""Run folders: begun, taken up again, refused where another recipe lies in them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from erase.config.prompts import Row
from erase.errors import BadPipeline, BadPrompts, CannotWrite, RunConflict, UnknownName
from erase.files import alone_at, sha256_of
from erase.run.identity import differences
from erase.run.pipeline import Pipeline, load_pipeline
from erase.run.store import RUNS, SIDES, Planned, Run, open_run, run_in
from tests.evaluate.pictures import noisy
from tests.recipes import command, contents, refused, tiny_recipe, write_recipe

ROW = Row("ein Café", 3, {"style": "noto"})
NAMES = ("1" * 32, "2" * 32)


def drawn(folder: Path, recipe: Pipeline) -> Run:
    """A run with a plan of one row and its two images."""
    run = Run(folder, recipe)
    pair = [noisy(run.image(side, name), seed=seed) for seed, (side, name) in enumerate(zip(SIDES, NAMES, strict=True))]
    run.write_plan([ROW], [(pair[0], pair[1])])
    return run


@pytest.fixture
def recipe() -> Pipeline:
    """A carried pipeline with its hash, as resolving leaves it."""
    return with_hash(load_pipeline("erase-style"))


def start_run(recipe: Pipeline, folder: Path | None = None) -> Run:
    run = run_in(recipe, folder)
    run.begin()
    return run


def with_hash(pipeline: Pipeline) -> Pipeline:
    return pipeline.model_copy(update={"hash": pipeline.identity})


def stronger(recipe: Pipeline) -> Pipeline:
    return with_hash(recipe.model_copy(update={"edit": recipe.edit.model_copy(update={"strength": 2.0})}))


def test_a_run_is_opened_with_the_recipe_it_was_started_with(tmp_path: Path, recipe: Pipeline) -> None:
    start_run(recipe, tmp_path / "run")
    assert open_run(tmp_path / "run").recipe == recipe


def test_a_run_lies_in_a_folder_of_its_name(tmp_path: Path, recipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert start_run(recipe).folder == RUNS / "erase-style"
    assert open_run(Path("erase-style")).folder == RUNS / "erase-style"


def test_the_same_recipe_takes_a_run_up_again(tmp_path: Path, recipe: Pipeline) -> None:
    first = start_run(recipe, tmp_path)
    text = first.recipe_file.read_bytes()
    start_run(recipe, tmp_path)
    assert first.recipe_file.read_bytes() == text


def test_nothing_is_written_before_a_run_begins(tmp_path: Path, recipe: Pipeline) -> None:
    assert not run_in(recipe, tmp_path / "run").is_begun
    assert not (tmp_path / "run").exists()


def test_another_recipe_is_refused_and_the_run_stays(tmp_path: Path, recipe: Pipeline) -> None:
    run = start_run(recipe, tmp_path)
    text = run.recipe_file.read_bytes()
    with pytest.raises(RunConflict, match=r"edit\.strength is 1\.0 there and 2\.0 here"):
        start_run(stronger(recipe), tmp_path)
    assert run.recipe_file.read_bytes() == text


def test_a_folder_of_something_else_is_refused(tmp_path: Path, recipe: Pipeline) -> None:
    (tmp_path / "thesis.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(RunConflict, match="is no run of erase"):
        start_run(recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_killed_start_left_is_no_hindrance(tmp_path: Path, recipe: Pipeline) -> None:
    (tmp_path / ".recipe.yaml.12.partial").write_text("name: era", encoding="utf-8")
    assert start_run(recipe, tmp_path).recipe_file.is_file()


def test_a_run_begun_again_clears_what_a_killed_one_left_but_not_what_another_is_writing(
    tmp_path: Path, recipe: Pipeline
) -> None:
    run = start_run(recipe, tmp_path)
    for name in (".scores.json.1.partial", f".scores.json.{os.getpid()}.partial", "before/.a.png.77.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half", encoding="utf-8")
    for name in ("other.tmp-1", "other.tmp-1.old", "model.tmp-1", "model"):
        (tmp_path / name / "unet").mkdir(parents=True)
    shutil.move(tmp_path / "model.tmp-1", tmp_path / "aside")
    with alone_at(tmp_path / "model"):
        shutil.move(tmp_path / "aside", tmp_path / "model.tmp-1")
        run.begin()
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.yaml", "before", "model.tmp-1", "model"}
    assert list((tmp_path / "before").iterdir()) == []


def test_a_second_process_on_a_run_is_told_who_is_at_work_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_model: Path
) -> None:
    file = write_recipe(tmp_path, tiny_recipe(tmp_path, tiny_model))
    out = tmp_path / "run"
    assert command(capsys, "run", file, "--out", out).code == 0
    before = contents(out)
    with open_run(out).alone():
        for words in (("run", file, "--out", out), ("score", out), ("generate", out)):
            assert f"process {os.getpid()} on " in refused(capsys, *words)
    assert contents(out) == before


@pytest.mark.parametrize("name", ["con", "lpt1", "mine."])
def test_a_run_has_no_name_that_windows_refuses(name: str, tmp_path: Path, recipe: Pipeline) -> None:
    with pytest.raises(CannotWrite, match="Windows"):
        run_in(recipe, tmp_path / name)
    with pytest.raises(CannotWrite, match="Windows"):
        run_in(recipe.model_copy(update={"name": name}))


def test_a_folder_that_is_no_run_is_named_with_the_way_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="erase run --out"):
        open_run(tmp_path / "nothing")


def test_a_recipe_without_its_hash_is_refused(tmp_path: Path, recipe: Pipeline) -> None:
    file = start_run(recipe, tmp_path).recipe_file
    file.write_text(file.read_text(encoding="utf-8").replace(f"hash: {recipe.hash}\n", ""), encoding="utf-8")
    with pytest.raises(BadPipeline, match="has no hash"):
        open_run(tmp_path)


def test_a_plan_is_read_as_it_was_written_with_every_images_hash(tmp_path: Path, recipe: Pipeline) -> None:
    run = drawn(tmp_path, recipe)
    hashes = {name: sha256_of(run.image(side, name)) for side, name in zip(SIDES, NAMES, strict=True)}
    assert run.read_plan() == (Planned(ROW, *NAMES, hashes),)


def test_a_plan_names_the_images_that_are_not_as_they_were_made(tmp_path: Path, recipe: Pipeline) -> None:
    run = drawn(tmp_path, recipe)
    before, after = (run.image(side, name) for side, name in zip(SIDES, NAMES, strict=True))
    assert run.changed_images() == ()
    whole = before.read_bytes()
    before.write_bytes(after.read_bytes())
    assert run.changed_images() == (before,)
    with pytest.raises(BadPrompts, match=rf"1 images of .* \(first: before/{NAMES[0]}.png\); run `erase generate"):
        run.check_images()
    before.write_bytes(whole[:-9])
    run.check_images()  # one that was cut short is no picture, and is counted as missing
    before.unlink()
    after.unlink()
    assert run.changed_images() == (before, after)
    run.check_images()


def test_a_run_without_images_says_what_to_do(tmp_path: Path, recipe: Pipeline) -> None:
    with pytest.raises(BadPrompts, match="erase generate"):
        Run(tmp_path, recipe).read_plan()


def test_a_damaged_plan_says_what_to_do(tmp_path: Path, recipe: Pipeline) -> None:
    run = drawn(tmp_path, recipe)
    text = run.plan_file.read_text(encoding="utf-8")
    without_hashes = json.dumps({key: part for key, part in json.loads(text).items() if key != "hashes"})
    elsewhere = text.replace(NAMES[0], "../../" + NAMES[0])
    nested = "[" * 100_000
    for damaged in (text[:-9], "", "3\n", without_hashes, elsewhere, text.replace('"seed": 3', '"seed": "x"'), nested):
        run.plan_file.write_text(damaged, encoding="utf-8")
        with pytest.raises(BadPrompts, match="is damaged, or of an earlier version; remove it"):
            run.read_plan()


def test_differences_name_each_key_with_both_values(recipe: Pipeline) -> None:
    assert differences(recipe, stronger(recipe)) == ["edit.strength is 1.0 there and 2.0 here"]
    assert differences(recipe, recipe.model_copy(update={"name": "other"})) == []
