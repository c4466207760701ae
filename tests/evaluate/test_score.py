"""Scores gather every scorer's figures, name what is missing, and are read back as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from erase.errors import ScoreFailed
from erase.evaluate.images import Group, ScoredImage, Side
from erase.evaluate.metrics.figure import Figure
from erase.evaluate.score import Scores, score
from erase.files import content_hash, sha256_of
from erase.task import Target, Task
from tests.evaluate.pictures import noisy, shot

TASK = Task((Target("noto", "style", anchor="blob"),))


@pytest.fixture
def shots(tmp_path: Path) -> list[ScoredImage]:
    """One image that is there and one that is not."""
    there = shot("there", path=noisy(tmp_path / "there.png"), style="noto", object="cat")
    return [there, shot("lost", path=tmp_path / "lost.png", style="noto", object="cat", seed=1)]


def test_every_figure_is_there_and_missing_images_are_named(tiny_model: Path, shots: list[ScoredImage]) -> None:
    scores = score(TASK, shots, judge=tiny_model / "judge")
    assert {"ua", "cra", "style_accuracy", "object_accuracy"} == {figure.name for figure in scores.figures}
    assert scores.missing == ("lost",)
    assert set(scores.verdicts) == {"there"}
    assert all(set(figure.items) == {"there", "lost"} for figure in scores.figures)


def test_scores_are_read_back_as_they_were_written(tiny_model: Path, shots: list[ScoredImage]) -> None:
    scores = score(TASK, shots, judge=tiny_model / "judge")
    assert Scores.from_json(json.loads(json.dumps(scores.to_json(), allow_nan=False))) == scores


def test_nothing_to_score_or_to_score_with_is_an_error(tiny_model: Path, shots: list[ScoredImage]) -> None:
    judge = tiny_model / "judge"
    with pytest.raises(ScoreFailed, match="without a judge"):
        score(TASK, shots, judge=None)
    with pytest.raises(ScoreFailed, match="no images to score"):
        score(TASK, [], judge=judge)
    with pytest.raises(ScoreFailed, match="none of the 1 images can be read"):
        score(TASK, shots[1:], judge=judge)


@pytest.mark.parametrize("value", [{}, [], 3, {"figures": [{"name": "ua"}]}, {"figures": [1]}, {"figures": 3}])
def test_damaged_scores_say_what_to_do(value: Any) -> None:
    with pytest.raises(ScoreFailed, match="run `erase score` anew"):
        Scores.from_json(value)


@pytest.mark.parametrize("key", ["figures", "verdicts", "missing", "protocol", "images"])
@pytest.mark.parametrize("part", [3, [3], {"a": 3}, [{"name": "ua"}], None])
def test_scores_of_other_types_are_refused_though_their_digest_is_right(
    tiny_model: Path, shots: list[ScoredImage], key: str, part: Any
) -> None:
    value = score(TASK, shots, judge=tiny_model / "judge").to_json() | {key: part}
    del value["digest"]
    with pytest.raises(ScoreFailed, match=key):
        Scores.from_json(value | {"digest": content_hash(value)})


def test_a_number_changed_by_hand_is_noticed(tiny_model: Path, shots: list[ScoredImage]) -> None:
    value = score(TASK, shots, judge=tiny_model / "judge").to_json()
    value["figures"][0]["value"] = value["figures"][0]["value"] / 2 + 0.1
    with pytest.raises(ScoreFailed, match="changed since they were measured; run `erase score` anew"):
        Scores.from_json(value)


def test_scores_name_the_hash_of_every_image_that_they_are_of(tiny_model: Path, shots: list[ScoredImage]) -> None:
    scores = score(TASK, shots, judge=tiny_model / "judge")
    assert scores.images == {"there": sha256_of(shots[0].path), "lost": ""}


def figure(side: Side, *items: float, group: Group = "erased", name: str = "ua") -> Figure:
    values = {f"{side}{number}": value for number, value in enumerate(items)}
    return Figure(name, group, side, sum(items) / len(items), 0.0, 1.0, len(items), "higher", "1", values)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (Scores(()), ""),  # nothing was scored at all
        (Scores((figure("after", 1.0, group="kept", name="ira"),)), "no prompt names a target"),
        (Scores((figure("before", 0.0, 0.0), figure("after", 1.0, 1.0))), ""),
        (Scores((figure("before", 0.0, 1.0), figure("after", 1.0, 1.0))), ""),
        (Scores((figure("before", 0.0, 1.0, 1.0), figure("after", 1.0, 1.0))), "in only 1 of 3 images, 50% are needed"),
        # an image that is missing before the edit shows no target
        (Scores((figure("before", 0.0, 1.0),), missing=("before0",)), "in only 0 of 2 images, 50% are needed"),
    ],
)
def test_an_erasure_is_measured_only_where_the_base_model_shows_the_target(scores: Scores, said: str) -> None:
    assert scores.unmeasured.endswith(said)
    assert bool(scores.unmeasured) == bool(said)


def test_a_figure_is_found_by_name_side_and_group(tiny_model: Path, shots: list[ScoredImage]) -> None:
    scores = score(TASK, shots, judge=tiny_model / "judge")
    assert scores.find("ua") is scores.figures[0]
    assert scores.find("ua", group="kept") is None
    assert scores.find("ua", side="before") is None
