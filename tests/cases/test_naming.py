"""Prompt files and words as people bring them: whose concept a row names, in which column and in which spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.edit import Edit
from erase.run.pipeline import load_pipeline, resolve
from tests.recipes import command, refused

Capture = pytest.CaptureFixture[str]

RECIPE = """\
name: mine
model: emoji
task:
  kind: style
  targets: [{{name: {target}, anchor: fluent, synonyms: [google]}}]
  keeps: {{prompts: {keeps}}}
generate: {{prompts: {{name: emoji-square, where: {{style: [noto, blob], object: [cat]}}}}, seeds: [0]}}
"""
STYLES = ("fluent", "contrast", "noto", "blob")
CELLS = [(thing, style) for style in STYLES for thing in ("cat", "dog", "car")]


def recipe(folder: Path, *, target: str = "noto", keeps: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(RECIPE.format(target=target, keeps=keeps), encoding="utf-8")
    return file


@pytest.mark.parametrize("column", ["style", "artist", "ARTIST"])
def test_the_targets_own_rows_are_no_keeps_whichever_column_names_it(tmp_path: Path, column: str) -> None:
    rows = "".join(f"{n},a {thing} in {style} style,0,{style}\n" for n, (thing, style) in enumerate(CELLS))
    (tmp_path / "keeps.csv").write_text(f"case_number,prompt,evaluation_seed,{column}\n{rows}", encoding="utf-8")
    pipeline = load_pipeline(str(recipe(tmp_path, keeps=str(tmp_path / "keeps.csv"))))
    prompts = pipeline.make_task().prompts
    assert len(prompts) == 9
    assert not any("noto" in prompt for prompt in prompts)
    assert pipeline.notes() == ("keeps: 3 of 12 prompts of keeps name a target and are left out",)


def test_letter_case_makes_no_other_target(tmp_path: Path) -> None:
    tasks = [
        resolve(load_pipeline(str(recipe(tmp_path, target=name, keeps="emoji-square")))).make_task()
        for name in ("noto", "Noto")
    ]
    assert len(tasks[0].prompts) == 350
    assert tasks[0].prompts == tasks[1].prompts


def test_rows_labelled_by_a_synonym_are_no_keeps(tmp_path: Path) -> None:
    (tmp_path / "keeps.csv").write_text("prompt,artist\na cat,Google\na dog,nobody\n", encoding="utf-8")
    pipeline = load_pipeline(str(recipe(tmp_path, keeps=str(tmp_path / "keeps.csv"))))
    assert pipeline.make_task().prompts == ("a dog",)


@pytest.mark.parametrize("words", [("-k", "a cat in noto style"), ("-k", "object:Noto cat"), ("-a", "noto style")])
def test_a_phrase_that_names_the_target_is_refused(capsys: Capture, tmp_path: Path, words: tuple[str, str]) -> None:
    out = tmp_path / "x.safetensors"
    line = refused(capsys, "edit", "-t", "noto", *words, "-o", out)
    assert "noto" in line.lower()
    assert not out.exists()


def test_a_run_whose_prompts_name_no_target_is_refused_with_the_nearest_label(capsys: Capture, tmp_path: Path) -> None:
    line = refused(capsys, "run", recipe(tmp_path, target="notto", keeps="emoji-square"), "-o", tmp_path / "run")
    assert 'no prompt asks for the target "notto"' in line
    assert 'did you mean "noto"?' in line


@pytest.mark.parametrize("method", ["redirect", "uce", "rece", "time", "speed", "mace"])
def test_a_blank_anchor_gives_the_edit_of_the_empty_one(capsys: Capture, tmp_path: Path, method: str) -> None:
    contents = []
    for number, anchor in enumerate((" ", "")):
        out = tmp_path / f"{number}.safetensors"
        said = command(capsys, "edit", "--kind", "object", "-t", "bomb", "-a", anchor, "--method", method, "-o", out)
        assert said.code == 0, said.errors
        contents.append(Edit.load(out).content)
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "a cat in noto style\na café by Béla\n"),
        (
            "p.jsonl",
            '{"prompt": "a cat in noto style", "seed": 1}\n{"prompt": "a caf\\u00e9 by B\\u00e9la", "seed": 2}\n',
        ),
        ("p.csv", 'case_number,prompt,evaluation_seed\n0,a cat in noto style,1\n1,"",2\n'),
    ],
)
def test_lists_of_prompts_are_generated_and_empty_ones_counted(
    capsys: Capture, tiny_model: Path, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    out = tmp_path / "images"
    said = command(capsys, "generate", "-m", tiny_model, "--prompts", tmp_path / name, "--steps", 1, "-o", out)
    assert said.code == 0, said.errors
    assert len(list(out.rglob("*.png"))) == 2
    assert ("1 of 2 prompts are empty" in said.errors) == (name == "p.csv")
