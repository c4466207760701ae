"""Options that commands share: targets of a file, synonyms, other values of a pipeline, plans, device, what is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from erase.cli._task import make_task, read_targets, with_synonyms
from erase.edit import Edit
from erase.errors import BadTask
from erase.models import Model
from erase.run.pipeline import load_pipeline
from erase.task import Task
from tests.recipes import command, contents, refused, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "kind", "found"),
    [
        ("a.txt", "Van Gogh\n\n  Kelly McKernan \nVan Gogh\n", "style", [("Van Gogh", ""), ("Kelly McKernan", "")]),
        ("a.csv", "target,anchor\nVan Gogh,a painting\nMonet,\n", "style", [("Van Gogh", "a painting"), ("Monet", "")]),
        ("a.csv", "case_number;Artist\n1;Van Gogh\n2;Monet\n3;Monet\n", "style", [("Van Gogh", ""), ("Monet", "")]),
        ("a.tsv", "class\tn\ntench\t1\nchurch\t2\n", "object", [("tench", ""), ("church", "")]),
        ("a.csv", "whatever\nÉdouard Manet\n", "style", [("Édouard Manet", "")]),
    ],
)
def test_targets_are_the_lines_or_the_column_of_a_file(
    place: Path, name: str, text: str, kind: str, found: list[tuple[str, str]]
) -> None:
    (place / name).write_text(text, encoding="utf-8")
    assert read_targets(place / name, kind) == found


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("a.csv", "x,y\n1,2\n", 'no column "target"; its columns: x, y'), ("a.txt", "\n", "names no target")],
)
def test_a_file_of_no_targets_is_one_line(place: Path, name: str, text: str, told: str) -> None:
    (place / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadTask, match=told):
        read_targets(place / name, "style")


def test_an_edit_takes_targets_of_a_file_their_synonyms_and_prompts(capsys: Capture, model: Model, place: Path) -> None:
    (place / "artists.csv").write_text("target,anchor\nnoto,blob\ntwemoji,\n", encoding="utf-8")
    given = ("--targets", "artists.csv", "--synonym", "noto=kitty", "-p", "a cat in {} style", "-k", "firefox")
    said = command(capsys, "edit", "-m", model.path, "--method", "uce", *given, "--json", "-o", "e.safetensors")
    assert said.code == 0, said.errors
    task = Task.from_dict(Edit.load("e.safetensors").info.task)
    assert [(one.name, one.anchor, one.synonyms) for one in task.targets] == [
        ("noto", "blob", ("kitty",)),
        ("twemoji", "", ()),
    ]
    assert {one.prompts for one in task.targets} == {("a cat in {} style",)}
    told = json.loads(said.out)
    assert (told["edit"], told["method"]) == ("e.safetensors", "uce")
    assert told["content"] == Edit.load("e.safetensors").content


def test_a_synonym_of_one_target_needs_no_name_and_of_several_does() -> None:
    assert make_task("style", ["noto"], synonyms=["google", "a=b"][:1]).targets[0].synonyms == ("google",)
    with pytest.raises(BadTask, match="does not say whose it is; expected TARGET=WORD"):
        make_task("style", ["noto", "blob"], synonyms=["google"])
    task = with_synonyms(Task(["noto", "blob"], ["cat"]), ["noto=google", "noto=android"])
    assert task.targets[0].synonyms == ("google", "android")
    assert task.keeps == Task(["noto", "blob"], ["cat"]).keeps


def test_a_pipeline_runs_with_other_values(capsys: Capture, model: Model, place: Path) -> None:
    recipe = write_recipe(place, tiny_recipe(place, model.path))
    given = ("--set", "edit.options.lamb=0.25", "--set", "task.targets.0.anchor=firefox", "--set", "edit.strength=0.5")
    said = command(capsys, "edit", recipe, *given)
    assert said.code == 0, said.errors
    info = Edit.load("runs/mine/edit.safetensors").info
    assert (info.options["lamb"], info.task["targets"][0]["anchor"], info.strength) == (0.25, "firefox", 0.5)


def test_other_values_are_those_that_a_file_could_hold(place: Path, model: Model) -> None:
    recipe = tiny_recipe(place, model.path)
    path = str(write_recipe(place, recipe))
    changed = load_pipeline(path, {"edit.method": "mace", "generate.seeds": [0, 1], "gate.ua": 0.9, "grid": None})
    recipe["edit"]["method"], recipe["generate"]["seeds"] = "mace", [0, 1]
    (place / "other.yaml").write_text(yaml.safe_dump(recipe | {"gate": {"ua": 0.9}, "grid": None}), encoding="utf-8")
    assert changed == load_pipeline("other.yaml")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("edit.methd=uce", 'unknown key "methd" in edit; did you mean "method"?'),
        ("generate.seeds=[-1]", "generate.seeds[0] is -1"),
        ("name.first=x", 'there is no "first" in'),
        ("edit.method", "--set"),
    ],
)
def test_a_value_that_no_pipeline_takes_is_one_line(
    capsys: Capture, place: Path, model: Model, setting: str, told: str
) -> None:
    recipe = write_recipe(place, tiny_recipe(place, model.path))
    assert told in refused(capsys, "run", recipe, "--set", setting)


def test_a_plan_tells_what_would_be_made_and_writes_nothing(capsys: Capture, place: Path, model: Model) -> None:
    recipe = write_recipe(place, tiny_recipe(place, model.path))
    before = contents(place)
    for name in ("run", "edit"):
        said = command(capsys, name, recipe, "--dry-run", "--set", "generate.seeds=[0,1]")
        assert said.code == 0, said.errors
        assert "uce on" in said.out
        assert "noto → blob" in said.out
        assert "32 images of 8 prompts before and after, 2 steps each" in said.out
        assert ("; about " in said.out) == (name == "run")  # an edit alone makes none of them
    assert contents(place) == before
    said = command(capsys, "edit", "-m", model.path, "-t", "noto", "--method", "uce", "--option", "lamb=3", "--dry-run")
    assert "uce: " in said.out
    assert "lamb 3.0" in said.out
    assert contents(place) == before


def test_a_run_tells_programs_what_it_made_and_tells_people_nothing(capsys: Capture, place: Path, model: Model) -> None:
    recipe = tiny_recipe(place, model.path) | {"gate": {}, "export": ["patch"]}
    said = command(capsys, "run", write_recipe(place, recipe), "--json", "--quiet", "-o", "out")
    told: dict[str, Any] = json.loads(said.out)
    assert told["run"] == "out"
    assert Path(told["results"]["report"]).is_file()
    assert not [line for line in said.errors.splitlines() if line.startswith(("edit ", "generate", "  before"))]
    seen = command(capsys, "inspect", "out")
    assert seen.out.splitlines()[0] == "out is a run of erase"
    assert "noto → blob" in seen.out
    assert json.loads(command(capsys, "inspect", "out", "--json").out)["edit"]["method"] == "uce"


def test_what_each_step_took_is_told_where_it_is_asked_for(
    capsys: Capture, place: Path, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = write_recipe(place, tiny_recipe(place, model.path))
    assert command(capsys, "edit", recipe, "--verbose").code == 0
    assert any(text.startswith("edit took ") for text in caplog.messages)
    caplog.clear()
    assert command(capsys, "edit", recipe, "-o", "again").code == 0
    assert not any("took" in text for text in caplog.messages)


def test_a_device_is_this_commands_alone_and_one_that_is_not_here_is_told(
    capsys: Capture, place: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("edit", "-m", model.path, "-t", "noto", "--method", "uce", "--device")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert command(capsys, *given, "cpu").code == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert "CUDA devices are here" in refused(capsys, *given, "cuda:64")
    assert "expected cpu, mps, cuda" in refused(capsys, *given, "tpu")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert "launcher" in refused(capsys, *given, "cpu")


def test_images_are_drawn_in_the_precision_that_is_asked_for(capsys: Capture, place: Path, model: Model) -> None:
    given = ("generate", "-m", model.path, "-p", "a cat", "--steps", "2", "--batch", "1", "-o")
    full = command(capsys, *given, "full", "--json")
    half = command(capsys, *given, "half", "--dtype", "bfloat16")
    assert (full.code, half.code) == (0, 0)
    assert json.loads(full.out) == {"images": ["full/before"]}
    names = [set(contents(place / side)) for side in ("full", "half")]
    assert len(names[0]) == len(names[1]) == 1
    assert names[0] != names[1]
    assert "expected one of auto, float32" in refused(capsys, *given, "x", "--dtype", "int8")


def test_a_shell_is_told_what_may_come_next(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))  # whatever runs the tests
    assert "--install-completion" in command(capsys, "--help").out
    shown = command(capsys, "--show-completion", "bash")
    assert (shown.code, shown.errors) == (0, "")
    assert "_ERASE_COMPLETE" in shown.out
    monkeypatch.setenv("_ERASE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "erase edit --method redi")
    monkeypatch.setenv("COMP_CWORD", "3")
    said = command(capsys)
    assert said.code == 0, said.errors
    assert said.out.split() == ["redirect"]
