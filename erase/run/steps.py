"""The steps of a run, each usable alone: edit, generate, attack, score, grid, report, export."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from erase.errors import BadEdit, ScoreFailed
from erase.evaluate.images import SIDES
from erase.files import write_atomically
from erase.run.attacks import attack_all, check_attacks, has_attacks
from erase.run.options import check_can_edit, check_can_export, export_with, join_training, make_edit
from erase.run.outcome import bounds_of, check_gate, findings, load_edit, read_scores, shots, verdict_of
from erase.run.store import Run

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.models import Model
    from erase.run.pipeline import Pipeline

__all__ = ["bounds_of", "check_gate", "findings", "load_edit", "read_scores", "verdict_of"]

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """Who is told how far a run is."""

    def begin(self, step: str, text: str) -> None:
        """A step starts."""

    def count(self, text: str, done: int, total: int, *, unit: str = "images", note: str = "") -> None:
        """So many of a step's images, or of another unit, are done."""


@dataclass(frozen=True)
class Step:
    """One step: what it says, what it does, and whether its result is there already."""

    text: str
    do: Callable[[Run, Watch], None]
    is_done: Callable[[Run], bool]
    is_asked: Callable[[Pipeline], bool] = lambda recipe: True


def check(run: Run) -> None:
    """Raises what the method, the sampler, the model or its judge have against a recipe; writes nothing."""
    from erase.edit import check_strength
    from erase.sampling.attention import check_attention
    from erase.sampling.suited import check_suited

    check_strength(run.recipe.edit.strength)
    check_can_edit(run.method, run.model)
    check_can_export(run.recipe.export, run.model)
    for name, options in run.recipe.export_options.items():
        export_with(name, options)
    sampler = run.recipe.make_sampler()
    check_attention(sampler.attention)
    run.model.check_sampling()
    check_suited(run.model, sampler)
    run.model.check_task(run.task)
    check_attacks(run.recipe.attack, run.task, sampler, model=run.model)
    _ = run.model.fingerprint  # reads every weight that the edit depends on
    if run.judging is not None:
        run.judging.check()


def do_all(run: Run, watch: Watch) -> bool:
    """Whether anything was left to do: does the first step whose result is missing, and every one after it."""
    worked = False
    for name, step in STEPS.items():
        if step.is_asked(run.recipe) and (worked or not is_done(name, run)):
            do(name, run, watch)
            worked = True
    return worked


def is_done(name: str, run: Run) -> bool:
    """Whether a step's result is there, and of the run's own recipe."""
    stale = bool(run.stale) if name == "report" else name in run.stale  # a report tells of every step
    return not stale and STEPS[name].is_done(run)


def do(name: str, run: Run, watch: Watch) -> None:
    """Does one step, whether or not its result is there."""
    watch.begin(name, STEPS[name].text)
    STEPS[name].do(run, watch)


def work_as_rank(run: Run) -> None:
    """Does this process's share of a run's training and images, where it is not the first of several."""
    from erase.sampling.ranks import stream_share

    if not run.edit_file.is_file():
        train_as_rank(run)
    rows, sampler, place = run.recipe.make_rows(), run.recipe.make_sampler(), run.place
    with place.present():
        for _ in stream_share(run.model, rows, run.images("before"), place=place, sampler=sampler):
            pass
        if not place.wait_for(0, run.edit_file.is_file):
            raise BadEdit(f"the process of RANK 0 has ended without {run.edit_file}; run the same command again.")
        edit = load_edit(run)
        edit.check_base(run.model.fingerprint)
        for _ in stream_share(run.model, rows, run.images("after"), place=place, edit=edit, sampler=sampler):
            pass


def train_as_rank(run: Run) -> None:
    """Takes part in a run's training, if its method trains and the processes can talk; writes and tells nothing."""
    join_training(run.method, run.model, run.task)


def export(
    name: str, model: Model, edit: Edit, *, target: Path, options: Mapping[str, Any] = MappingProxyType({})
) -> Path:
    """Where an export was written; raises UnknownName, BadOption and what the export raises."""
    from erase.models import open_model, saved

    check_can_export([name], model)
    if edit.gated and name != "patch":
        _log.warning(
            "%s: the gate of %s is fixed at full strength for every prompt; the edit itself opens it prompt by prompt",
            *(target, " and ".join(sorted({gate.method for gate in edit.gates}))),
        )
    with saved(model) as folder:  # of a model in memory
        base = model if folder is None or name in ("patch", "lora") else open_model(folder)
        return export_with(name, options)(base, edit, target)


def results(run: Run) -> dict[str, Path]:
    """What the run has made and where it lies, each file or folder once."""
    exports = [run.exported(name) for name in run.recipe.export]
    own = [run.grid_file, run.report_file, run.result_file, run.scores_file, run.edit_file]
    paths = dict.fromkeys([*own, *exports])
    return {path.stem: path for path in paths if path.exists()}


def _edit(run: Run, watch: Watch) -> None:
    from erase.context import RunContext
    from erase.evaluate.label_samples import Observer

    # Banks lie beside the runs: another run, of any method, on the same model and concept finds them there.
    banks, looking = run.folder.parent / "banks", Observer(run.model)
    work = RunContext(run.folder / "training", banks, report=watch.count, observe=looking)
    make_edit(run.method, run.model, run.task, work=work, strength=run.recipe.edit.strength).save(run.edit_file)
    work.clear()


def _generate(run: Run, watch: Watch) -> None:
    from erase.sampling.ranks import stream_share

    rows, sampler, edit = run.recipe.make_rows(), run.recipe.make_sampler(), load_edit(run)
    edit.check_base(run.model.fingerprint)
    if line := run.model.cut_line([row.prompt for row in rows]):
        _log.warning("%s", line)
    run.clear_changed_images()
    judging, made = run.judging, dict[str, Mapping[tuple[str, int], Path]]()
    subject = judging.subject(edit, run.edit_file) if judging else None
    if judging and subject:
        judging.fix(subject, run.folder, late=any(next(run.images(side).glob("*.png"), None) for side in SIDES))
    for side, applied in zip(SIDES, (None, edit), strict=True):
        counted = functools.partial(watch.count, side)
        drawn = (
            (row.key, path)
            for row, path in stream_share(
                run.model, rows, run.images(side), place=run.place, edit=applied, sampler=sampler, progress=counted
            )
        )
        made[side] = judging.look(subject, side, drawn) if judging and subject else dict(drawn)
    keys = [row.key for row in rows]
    run.write_plan(rows, [(made["before"][key], made["after"][key]) for key in keys])


def _attack(run: Run, watch: Watch) -> None:
    from erase.evaluate.edited import Edited

    judging = run.judging
    if judging is None:
        raise ScoreFailed("the recipe asks for no score; remove `score: []` from the pipeline, and start anew.")
    edited, given = Edited(run.model, load_edit(run), run.task), judging.given
    attack_all(run.model, edited, judging.protocol, task=run.task, given=given, folder=run.folder, report=watch.count)


def _score(run: Run, watch: Watch) -> None:
    judging, pairs = run.judging, shots(run)
    if judging is None:
        raise ScoreFailed("the recipe asks for no score; remove `score: []` from the pipeline, and start anew.")

    subject = judging.subject(load_edit(run), run.edit_file)
    made = run.planned_images()
    for number, side in enumerate(SIDES):
        images = {pair[number].row.key: pair[number].path for pair in pairs}
        known = judging.seen.get(side)
        if known is None or any(known.hashes.get(path) != made[path] for path in images.values()):
            judging.look(subject, side, images.items())
    if run.scores_file.is_file() and not run.fixed_file.is_file():
        _log.warning("%s is of an earlier version: its images are judged anew, which result.json tells of.", run.folder)
    if run.folder not in judging.fixed:
        judging.fix(subject, run.folder, late=True)
    judging.conclude(subject, run)
    scores = judging.scores(pairs, run.folder)
    write_atomically(run.scores_file, json.dumps(scores.to_json(), indent=1) + "\n")


def _grid(run: Run, watch: Watch) -> None:
    from erase.evaluate.score import Scores
    from erase.report.grid import Pair, grid

    layout = run.recipe.grid
    scores = read_scores(run) if run.recipe.score else Scores(())
    pairs = [Pair(before, after) for before, after in shots(run)]
    image = grid(run.task, pairs, scores, columns=layout.columns if layout else 8)
    png = io.BytesIO()
    image.save(png, "PNG")
    write_atomically(run.grid_file, png.getvalue())


def _report(run: Run, watch: Watch) -> None:
    from erase.report.page import write_report

    write_report(findings(run), run.report_file)


def _export(run: Run, watch: Watch) -> None:
    edit = load_edit(run)
    for name in run.recipe.export:
        target = run.exported(name)
        if target != run.edit_file and _content_of(target) != edit.content:
            with _set_aside(target):
                export(name, run.model, edit, target=target, options=export_options(run, name))


def export_options(run: Run, name: str) -> dict[str, Any]:
    """The recipe's options of an export, and what the run knows: a folder's card shows the run's scores."""
    own = run.recipe.export_options.get(name, {})
    if name != "folder" or not run.scores_file.is_file():
        return own
    run.read_scores()  # a card shows none that were changed
    return {"scores": str(run.scores_file), **own}


def _has_exports(run: Run) -> bool:
    """Whether every export is there, and of the run's own edit: it may be one of another strength."""
    places = [run.exported(name) for name in run.recipe.export]
    if not all(place.exists() for place in places):
        return False
    return not places or {_content_of(place) for place in places} == {load_edit(run).content}


def _content_of(exported: Path) -> str | None:
    """Which edit an exported file or folder says it holds."""
    from erase.export.parts.recipe import content_in

    return content_in(exported)


@contextlib.contextmanager
def _set_aside(target: Path) -> Iterator[None]:
    """Moves an earlier export away; it is removed when the block ends well and put back otherwise.

    What is no export of ours stays where it is, for the exporter to refuse.
    """
    if _content_of(target) is None:
        yield
        return
    aside = target.with_name(f"{target.name}.tmp-{os.getpid()}.old")
    os.replace(target, aside)
    try:
        yield
    except BaseException:
        os.replace(aside, target)
        raise
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()


def refresh(run: Run, watch: Watch) -> tuple[str, ...]:
    """Names of the steps whose results told of earlier scores, and were done anew: the grid, the report."""
    stale = [name for name in ("grid", "report") if _place(run, name).is_file() and not STEPS[name].is_done(run)]
    for name in stale:
        do(name, run, watch)
    return tuple(stale)


def _place(run: Run, name: str) -> Path:
    return run.grid_file if name == "grid" else run.report_file


def _tells_of_the_scores(run: Run, name: str) -> bool:
    """Whether a result is there, and not of scores that were replaced since."""
    place, scores = _place(run, name), run.scores_file
    return place.is_file() and not (scores.is_file() and scores.stat().st_mtime_ns > place.stat().st_mtime_ns)


STEPS: Mapping[str, Step] = MappingProxyType(
    {
        "edit": Step("making the edit", _edit, lambda run: run.edit_file.is_file()),
        "generate": Step(
            "making the images before and after",
            _generate,
            lambda run: run.plan_file.is_file() and not run.changed_images(),
        ),
        "attack": Step(
            "attacking what was erased",
            _attack,
            lambda run: has_attacks(run.folder, run.recipe.attack),
            lambda recipe: bool(recipe.attack),
        ),
        "score": Step("scoring the images", _score, Run.has_scores, lambda recipe: bool(recipe.score)),
        "grid": Step(
            "drawing the grid",
            _grid,
            lambda run: _tells_of_the_scores(run, "grid"),
            lambda recipe: recipe.grid is not None,
        ),
        "report": Step("writing the report", _report, lambda run: _tells_of_the_scores(run, "report")),
        "export": Step("exporting", _export, _has_exports),
    }
)
