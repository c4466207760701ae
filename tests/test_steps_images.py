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
from erase.evaluate.result import read_result
from erase.files import content_hash
from erase.run import steps
from erase.run.pipeline import GateForm
from erase.run.store import Run
from tests.finished import Seen, rejudged, stamps
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


def gated(run: Run) -> Run:
    return Run(run.folder, run.recipe.model_copy(update={"gate": GateForm()}))


def test_a_result_changed_by_hand_decides_no_gate_and_is_no_finished_run(run: Run) -> None:
    value = json.loads(run.result_file.read_text(encoding="utf-8"))
    for one in value["outcomes"]:
        one["after"] = one["role"] == "kept"
    run.result_file.write_text(json.dumps(value), encoding="utf-8")
    for step in (steps.check_gate, steps.findings):
        with pytest.raises(ScoreFailed, match="was changed since it was written"):
            step(gated(run))
    with pytest.raises(ScoreFailed, match="was changed since it was written"):
        steps.do_all(run, Seen())
    steps.do("score", run, Seen())
    run.read_result()


def test_a_result_of_other_images_is_not_the_runs_and_is_made_anew(run: Run) -> None:
    told = read_result(run.result_file)
    told["images"] = {name: sha[::-1] for name, sha in told["images"].items()}
    run.result_file.write_text(json.dumps(told | {"digest": content_hash(told)}), encoding="utf-8")
    with pytest.raises(ScoreFailed, match="is of other images than the run's"):
        steps.check_gate(gated(run))
    watch = Seen()
    assert steps.do_all(run, watch)
    assert watch.begun[0] == "score"


def test_a_gate_fails_where_the_base_model_never_draws_the_target(run: Run) -> None:
    rejudged(run, lambda one: replace(one, before=one.role == "kept", after=one.role == "kept", distance=0.1))
    with pytest.raises(GateFailed, match=r"the base model itself shows the target in only 0 of \d images"):
        steps.check_gate(gated(run))
    steps.do("report", gated(run), Seen())
    page = run.report_file.read_text(encoding="utf-8")
    assert "the base model itself shows the target in only 0" in page
