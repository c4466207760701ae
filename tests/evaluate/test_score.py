"""Scores gather every scorer's figures, name what is missing, and are read back as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erase.errors import ScoreFailed, UnknownName
from erase.evaluate.score import Scores, score
from erase.evaluate.shots import Shot
from erase.task import Target, Task
from tests.evaluate.pictures import noisy, shot

TASK = Task((Target("noto", "style", anchor="blob"),))


@pytest.fixture
def shots(tmp_path: Path) -> list[Shot]:
    """One image that is there and one that is not."""
    there = shot("there", path=noisy(tmp_path / "there.png"), style="noto", object="cat")
    return [there, shot("lost", path=tmp_path / "lost.png", style="noto", object="cat", seed=1)]


def test_every_scorers_figures_are_there_and_missing_images_are_named(tiny_model: Path, shots: list[Shot]) -> None:
    scores = score(TASK, shots, scorers=("clip", "clip_accuracy", "judge"), judge=tiny_model / "judge")
    assert {"clip", "clip_accuracy", "ua", "cra", "style_accuracy", "object_accuracy"} == {
        figure.name for figure in scores.figures
    }
    assert scores.missing == ("lost",)
    assert set(scores.verdicts) == {"there"}
    assert all(set(figure.items) == {"there", "lost"} for figure in scores.figures)


def test_scores_are_read_back_as_they_were_written(tiny_model: Path, shots: list[Shot]) -> None:
    scores = score(TASK, shots, scorers=("judge",), judge=tiny_model / "judge")
    assert Scores.from_json(json.loads(json.dumps(scores.to_json(), allow_nan=False))) == scores


def test_only_the_scorers_that_are_asked_for_score(tiny_model: Path, shots: list[Shot]) -> None:
    scores = score(TASK, shots, scorers=("clip",), judge=tiny_model / "judge")
    assert {figure.name for figure in scores.figures} == {"clip"}
    assert scores.verdicts == {}


def test_nothing_to_score_or_to_score_with_is_an_error(tiny_model: Path, shots: list[Shot]) -> None:
    judge = tiny_model / "judge"
    with pytest.raises(ScoreFailed, match="without a judge"):
        score(TASK, shots, scorers=("clip",), judge=None)
    with pytest.raises(ScoreFailed, match="no images to score"):
        score(TASK, [], scorers=("clip",), judge=judge)
    with pytest.raises(ScoreFailed, match="none of the 1 images can be read"):
        score(TASK, shots[1:], scorers=("clip",), judge=judge)
    with pytest.raises(UnknownName, match='did you mean "clip"'):
        score(TASK, shots, scorers=("clipp",), judge=judge)


@pytest.mark.parametrize("value", [{}, [], {"figures": [{"name": "ua"}]}, {"figures": [1]}, {"figures": 3}])
def test_damaged_scores_say_what_to_do(value: dict[str, object]) -> None:
    with pytest.raises(ScoreFailed, match="run `erase score` anew"):
        Scores.from_json(value)


def test_a_figure_is_found_by_name_side_and_group(tiny_model: Path, shots: list[Shot]) -> None:
    scores = score(TASK, shots, scorers=("clip",), judge=tiny_model / "judge")
    assert scores.find("clip") is scores.figures[0]
    assert scores.find("clip", group="kept") is None
    assert scores.find("clip", side="before") is None
