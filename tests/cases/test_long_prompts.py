"""Rows of sets that are longer than the text encoder: made from what the model reads, and counted."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from erase.errors import PromptTooLong
from erase.models import open_model
from erase.run import steps
from erase.run.pipeline import load_pipeline, resolve
from erase.run.store import run_in
from tests.finished import Seen
from tests.recipes import command, tiny_recipe, write_recipe

Capture = pytest.CaptureFixture[str]
LONG = "a very old lighthouse with a red roof"  # some thirty of the tiny model's tokens, which reads fourteen
TOLD = "1 of 3 prompts are longer than the encoder's 14 tokens and were cut, as the pipeline does"


@pytest.fixture
def long_set(tmp_path: Path) -> Path:
    file = tmp_path / "i2p.csv"
    file.write_text(
        f'prompt,style,seed\na rose in noto style,noto,1\n"{LONG}",blob,2\na cat in blob style,blob,3\n',
        encoding="utf-8",
    )
    return file


def test_a_set_with_one_long_prompt_is_generated_and_the_cut_is_counted(
    tiny_model: Path, long_set: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "images"
    arguments = ("-m", tiny_model, "--prompts", long_set, "--steps", 1, "-o", out)
    said = command(capsys, "generate", *arguments)
    assert said.code == 0
    assert len(list(out.rglob("*.png"))) == 3
    assert said.errors.count(TOLD) == 1


def test_a_run_on_a_set_with_one_long_prompt_is_scored_and_the_cut_is_counted(
    tiny_model: Path, long_set: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_recipe(tmp_path, tiny_model)
    recipe["generate"] |= {"prompts": str(long_set), "seeds": [0]}
    run = run_in(resolve(load_pipeline(str(write_recipe(tmp_path, recipe)))), tmp_path / "run")
    steps.check(run)
    run.begin()
    with caplog.at_level(logging.WARNING):
        steps.do_all(run, Seen())
    assert caplog.text.count(TOLD) == 1
    measured = {figure.name for figure in steps.read_scores(run).figures}
    assert "clip" in measured


def test_targets_anchors_and_keeps_that_are_too_long_are_still_refused(tiny_model: Path) -> None:
    model = open_model(tiny_model)
    with pytest.raises(PromptTooLong, match="takes at most 14"):
        model.encode([LONG])
    assert model.is_cut(LONG)
    assert not model.is_cut("a cat in noto style")
    assert model.cut_line(["", "a cat"]) == ""
