"""The sentence on top: what the bounds say, and what a reader must know before believing it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from erase.config.prompts import Row
from erase.evaluate.metrics.figures import canvas
from erase.evaluate.score import Scores
from erase.report.verdict import names_of, reach_verdict
from erase.task import Target, Task
from tests.report.made import See, as_asked, erased, harsh, proved, ruined, square
from tests.report.made import made as few

made = partial(few, rows=square(seeds=10))  # 20 images of the target: all gone prove 80 %


def odd(row: Row) -> dict[str, str]:
    """Sees a house instead of the object in every second image."""
    return {"object": "house"} if row.seed % 2 else {}


@pytest.mark.parametrize(
    ("after", "state", "headline"),
    [
        (erased, "passed", "“noto” is gone; the rest stays."),
        (as_asked, "failed", "“noto” is still there."),
        (harsh, "failed", "“noto” is gone, but others of the kind went too."),
        (ruined, "failed", "Model destroyed."),
        (lambda row: {**erased(row), **odd(row)}, "failed", "“noto” is gone, but the objects suffered."),
        (lambda row: {**row.labels, **odd(row)}, "failed", "“noto” is still there, and the objects suffered."),
    ],
)
def test_the_headline_tells_gone_from_unchanged_from_harmed(
    tmp_path: Path, after: See, state: str, headline: str
) -> None:
    verdict = reach_verdict(made(tmp_path, after))
    assert (verdict.state, verdict.headline) == (state, headline)


def test_half_an_erasure_is_still_there_not_unchanged(tmp_path: Path) -> None:
    verdict = reach_verdict(
        made(tmp_path, lambda row: erased(row) if row.labels.get("object") == "cat" else row.labels)
    )
    assert verdict.headline == "“noto” is still there."


def test_without_bounds_nothing_is_called_a_success(tmp_path: Path) -> None:
    verdict = reach_verdict(made(tmp_path, bounds={}))
    assert verdict.state == "open"
    assert "nothing here is called a success" in verdict.remarks[0]


def test_a_bound_reached_by_few_images_is_said_to_be_unsure(tmp_path: Path) -> None:
    verdict = reach_verdict(few(tmp_path))
    remarks = verdict.remarks
    assert (verdict.state, verdict.headline) == (
        "failed",
        "Too few images to tell whether “noto” is gone and the rest stays.",
    )
    assert any("gone: its own prompts is 100.0% of 4 images" in remark for remark in remarks)
    assert any("16 images at this rate" in remark for remark in remarks)


def test_missing_images_are_counted(tmp_path: Path) -> None:
    findings = made(tmp_path)
    findings.pairs[0].after.path.unlink()
    scores = replace(findings.scores, missing=(findings.pairs[1].before.id,))
    remarks = reach_verdict(proved(replace(findings, scores=scores))).remarks
    assert remarks[0] == "2 images are missing or damaged and count as the worst case."


def test_targets_are_named_or_counted() -> None:
    targets = [Target(name, "object") for name in ("bomb", "knife", "beer", "wine")]
    assert names_of(Task(tuple(targets[:1]))) == "“bomb”"
    assert names_of(Task(tuple(targets[:3]))) == "“bomb”, “knife” and “beer”"
    assert names_of(Task(tuple(targets))) == "4 concepts (“bomb”, “knife” and others)"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (as_asked, ["Still there: asked by its own prompts, the target is in 20 of 20 images: a cat in noto style"]),
        (
            harsh,
            ["Over-erased: of the others of its kind, 20 of 40 images that were right are right now; lost: twemoji"],
        ),
        (ruined, ["Model destroyed: only 20 of 101 images that were right before are right now."]),
    ],
)
def test_a_failed_run_says_why_in_the_words_of_the_gate(tmp_path: Path, after: See, said: list[str]) -> None:
    remarks = reach_verdict(made(tmp_path, after)).remarks
    for text in said:
        assert any(remark.startswith(text) for remark in remarks), remarks


def test_an_edit_that_changes_no_pixel_is_told(tmp_path: Path) -> None:
    findings = made(tmp_path, as_asked)
    for pair in findings.pairs:
        pair.after.path.write_bytes(pair.before.path.read_bytes())
    remarks = reach_verdict(proved(findings)).remarks
    assert "Nothing changed: 20 of 20 images of the target are as before the edit." in remarks


def test_white_images_are_a_broken_model_whatever_the_judge_says(tmp_path: Path) -> None:
    findings = made(tmp_path, as_asked)
    for pair in findings.pairs:
        Image.new("RGB", (16, 16), "white").save(pair.after.path)
    remarks = reach_verdict(proved(findings)).remarks
    assert "Model destroyed: 101 of 101 images that must stay are of one colour." in remarks


def test_a_run_that_passes_needs_no_reason(tmp_path: Path) -> None:
    assert not [remark for remark in reach_verdict(made(tmp_path, erased)).remarks if "there" in remark]


def test_what_the_base_model_drew_wrong_already_is_not_held_against_the_edit(tmp_path: Path) -> None:
    findings = made(tmp_path)
    shots = [shot for pair in findings.pairs for shot in (pair.before, pair.after)]
    seen = {
        shot.id: findings.scores.verdicts[shot.id]
        | ({"style": "mono"} if shot.row.labels.get("style") == "twemoji" else {})
        for shot in shots
    }
    scores = Scores(tuple(canvas(findings.task, shots, seen)), seen)
    assert [figure.value for figure in scores.figures if figure.name == "ira"] == [0.5, 0.5]
    verdict = reach_verdict(proved(replace(findings, scores=scores)))
    assert verdict.state == "passed"
    assert not any("IRA" in remark for remark in verdict.remarks)
