"""A target that the judge's CLIP does not read to its end is told before the first image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import CLIPConfig, CLIPModel

from tests.recipes import command, refused, tiny_recipe, write_recipe
from tests.tiny_edits import tiny_edit

NAME = "notocatdog"  # ten letters or so, and as many of the tiny tokenizer's tokens


@pytest.fixture
def short_sighted(tiny_copy: Path) -> Path:
    """A copy of the tiny model whose judge's CLIP reads six tokens, and the model itself fourteen."""
    folder = tiny_copy / "judge/clip"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = 8
    CLIPModel(CLIPConfig.from_dict(config)).save_pretrained(folder)
    return tiny_copy


def recipe_file(folder: Path, model: Path, targets: Sequence[str]) -> Path:
    recipe = tiny_recipe(folder, model)
    rows = [f"a {thing},0,{name}" for thing, name in zip(("cat", "fish"), targets, strict=False)]
    (folder / "rows.csv").write_text(
        "\n".join(["prompt,seed,style", *rows, "a dog in blob style,0,blob"]), encoding="utf-8"
    )
    recipe["generate"]["prompts"] = str(folder / "rows.csv")
    recipe["task"] = {"kind": "style", "targets": [{"name": name, "anchor": "blob"} for name in targets]}
    return write_recipe(folder, recipe)


def test_a_run_of_targets_that_the_judge_reads_is_scored_though_it_reads_prompts_by_halves(
    capsys: pytest.CaptureFixture[str], short_sighted: Path, tmp_path: Path
) -> None:
    said = command(capsys, "run", recipe_file(tmp_path, short_sighted, ["noto"]), "--out", tmp_path / "run")
    assert said.code == 0, said.errors
    assert (tmp_path / "run/scores.json").is_file()


@pytest.mark.parametrize("option", ["--target", "--keep"])
def test_a_verification_of_a_name_that_is_too_long_for_its_clip_makes_nothing(
    capsys: pytest.CaptureFixture[str], short_sighted: Path, tmp_path: Path, option: str
) -> None:
    from erase.models import open_model

    tiny_edit(open_model(short_sighted)).save(tmp_path / "edit.safetensors")
    (tmp_path / "mine.yaml").write_text(
        "version: '1'\ndescription: a test\nsource: a test\n"
        "detector: {name: clip_zero_shot, version: local, options: {template: 'a {}', others: [fish]}}\n"
        "sampler: {steps: 1}\nprompts:\n"
        "  - {role: erased, aspect: name, templates: ['a {word}']}\n"
        "  - {role: kept, aspect: keeps, fill: keeps, templates: ['a {word}']}\n",
        encoding="utf-8",
    )
    names = {"--target": "cat", "--keep": "car"} | {option: NAME}
    places = ("--base", short_sighted, "--protocol", tmp_path / "mine.yaml", "-o", tmp_path / "out", "--kind", "object")
    task = [word for pair in names.items() for word in pair]
    line = refused(capsys, "verify", tmp_path / "edit.safetensors", *places, *task)
    assert "tokens that the CLIP in" in line
    assert not (tmp_path / "out").exists()
