"""What is scored, shown and gated are the images that were made, and the scores that were measured on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from erase.errors import BadPrompts, GateFailed, ScoreFailed
from erase.run import steps
from erase.run.pipeline import GateForm
from erase.run.store import Run
from tests.finished import Seen, rescored, stamps
from tests.recipes import contents


@pytest.fixture
def painted(run: Run) -> Path:
    """An image of the run on which somebody painted, keeping what the file says of itself."""
    path = sorted(run.images("after").iterdir())[0]
    with Image.open(path) as image:
        notes = PngInfo()
        for key, text in image.info.items():
            notes.add_text(key, text)
        changed = Image.new("RGB", image.size, "#c00000")
    changed.save(path, "PNG", pnginfo=notes)
    return path


def swap(run: Run) -> None:
    """The images of a row exchange their names: that after the edit stands before it."""
    one = run.read_plan()[0]
    before, after = run.image("before", one.before), run.image("after", one.after)
    data = before.read_bytes()
    before.write_bytes(after.read_bytes())
    after.write_bytes(data)


def cut(run: Run) -> None:
    """An image loses its end."""
    path = sorted(run.images("after").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-20])


def test_an_image_that_was_painted_over_is_made_again(
    run: Run, finished: Run, painted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert steps.do_all(run, Seen())
    assert caplog.messages == [f"1 images of {run.folder} are not as made and made again."]
    assert contents(run.folder) == contents(finished.folder)


@pytest.mark.parametrize("change", [swap, cut])
def test_images_that_were_swapped_or_cut_short_are_made_again(
    run: Run, finished: Run, change: Callable[[Run], None]
) -> None:
    change(run)
    assert steps.do_all(run, Seen())
    assert contents(run.folder) == contents(finished.folder)


@pytest.mark.parametrize("change", [swap, cut])
def test_images_changed_before_there_is_a_plan_are_made_again(
    run: Run, finished: Run, change: Callable[[Run], None]
) -> None:
    change(run)
    run.plan_file.unlink()
    steps.do("generate", run, Seen())
    assert contents(run.folder) == contents(finished.folder)


@pytest.mark.parametrize("step", ["score", "grid", "report"])
def test_an_image_that_was_painted_over_is_not_scored_or_shown(run: Run, painted: Path, step: str) -> None:
    before = stamps(run.folder)
    with pytest.raises(BadPrompts, match=r"1 images of .* are not those that were made .*; run `erase generate"):
        steps.do(step, run, Seen())
    assert stamps(run.folder) == before


def test_a_score_changed_by_hand_decides_no_gate_and_is_no_finished_run(run: Run) -> None:
    value = json.loads(run.scores_file.read_text(encoding="utf-8"))
    for figure in value["figures"]:
        figure["value"] = 1.0
    run.scores_file.write_text(json.dumps(value), encoding="utf-8")
    gated = Run(run.folder, run.recipe.model_copy(update={"gate": GateForm(ua=0.9)}))
    said = rf"changed since they were measured; run `erase score {run.folder}` anew"
    for step in (steps.check_gate, steps.findings, lambda run: steps.do_all(run, Seen())):
        with pytest.raises(ScoreFailed, match=said):
            step(gated)
    steps.do("score", gated, Seen())
    steps.read_scores(gated)


def test_scores_of_other_images_are_not_the_runs_and_are_made_anew(run: Run) -> None:
    scores = steps.read_scores(run)
    other = replace(scores, images={name: sha[::-1] for name, sha in scores.images.items()})
    run.scores_file.write_text(json.dumps(other.to_json()), encoding="utf-8")
    with pytest.raises(ScoreFailed, match="is of other images than the run's"):
        steps.check_gate(Run(run.folder, run.recipe.model_copy(update={"gate": GateForm(ua=0.0)})))
    watch = Seen()
    assert steps.do_all(run, watch)
    assert watch.begun[0] == "score"


def test_a_gate_fails_where_the_base_model_never_draws_the_target(run: Run) -> None:
    figures = [replace(one, value=1.0, items=dict.fromkeys(one.items, 1.0)) for one in steps.read_scores(run).figures]
    rescored(run, figures)
    gated = Run(run.folder, run.recipe.model_copy(update={"gate": GateForm(ua=0.9)}))
    with pytest.raises(GateFailed, match=r"the base model itself shows the target in only 0 of \d images"):
        steps.check_gate(gated)
    steps.do("report", run, Seen())
    assert "UA not measured: the base model itself shows the target in only 0" in run.report_file.read_text(
        encoding="utf-8"
    )
