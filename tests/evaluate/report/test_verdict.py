"""The sentence on top: what the bounds say, and what a reader must know before believing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from erase.evaluate.report.verdict import names_of, reach_verdict
from erase.evaluate.score import Scores
from erase.task import Target, Task
from tests.evaluate.report.made import See, as_asked, erased, harsh, made, ruined


@pytest.mark.parametrize(
    ("after", "state", "headline"),
    [
        (erased, "passed", "“noto” is gone; the rest stays."),
        (as_asked, "failed", "Nothing changed: “noto” is drawn as before."),
        (harsh, "failed", "“noto” is gone, but others of the kind went too."),
        (ruined, "failed", "“noto” is gone, and so is much else."),
        (lambda row: {**erased(row), "object": "house"}, "failed", "“noto” is gone, but the objects suffered."),
        (lambda row: {**row.labels, "object": "house"}, "failed", "“noto” is still there, and the objects suffered."),
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


@pytest.mark.parametrize(("bounds", "state"), [({"ua": 0.8}, "passed"), ({"ua": 0.8, "cra": 1.0}, "failed")])
def test_a_gate_of_fewer_bounds_judges_by_these_alone(tmp_path: Path, bounds: dict[str, float], state: str) -> None:
    after = made(tmp_path, lambda row: {**erased(row), "object": "house"}, bounds=bounds)
    verdict = reach_verdict(after)
    assert verdict.state == state
    assert "rest stays" not in verdict.headline


def test_a_figure_that_was_not_measured_fails_its_bound(tmp_path: Path) -> None:
    verdict = reach_verdict(replace(made(tmp_path), scores=Scores(())))
    assert verdict.state == "failed"
    assert len([remark for remark in verdict.remarks if "was not measured" in remark]) == 3


def test_a_bound_reached_by_few_images_is_said_to_be_unsure(tmp_path: Path) -> None:
    remarks = reach_verdict(made(tmp_path)).remarks
    # All of 4 images: Wilson's interval begins at 4 / (4 + 1.96²) = 51.0 %.
    assert "UA reaches its bound of 80 %, but its interval begins at 51.0 %: too few images (4) to be sure." in remarks


def test_missing_images_are_counted(tmp_path: Path) -> None:
    findings = made(tmp_path)
    findings.pairs[0].after.path.unlink()
    scores = replace(findings.scores, missing=(findings.pairs[1].before.id,))
    remarks = reach_verdict(replace(findings, scores=scores)).remarks
    assert remarks[-1] == "2 images are missing or damaged and count as the worst case."


def test_targets_are_named_or_counted() -> None:
    targets = [Target(name, "object") for name in ("bomb", "knife", "beer", "wine")]
    assert names_of(Task(tuple(targets[:1]))) == "“bomb”"
    assert names_of(Task(tuple(targets[:3]))) == "“bomb”, “knife” and “beer”"
    assert names_of(Task(tuple(targets))) == "4 concepts (“bomb”, “knife” and others)"
