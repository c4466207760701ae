"""What a run has come to: its edit, its scores, and whether its images prove what its gate asks."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from erase.errors import BadEdit, GateFailed
from erase.files import time_of
from erase.run.store import Run

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.evaluate.gate import Verdict
    from erase.evaluate.images import ScoredImage
    from erase.evaluate.score import Scores
    from erase.report.findings import Findings

DEFAULT_BOUND = 0.8  # of UA, IRA and CRA


def load_edit(run: Run) -> Edit:
    """The run's edit; raises BadEdit if there is none yet."""
    from erase.edit import Edit

    if not run.edit_file.is_file():
        raise BadEdit(f"{run.folder} has no edit yet; run `erase run` or `erase edit` with its pipeline first.")
    return Edit.load(run.edit_file)


def read_scores(run: Run) -> Scores:
    """The run's scores; raises ScoreFailed if there are none yet, or they are damaged, changed or of other images."""
    return run.read_scores()


def findings(run: Run) -> Findings:
    """All that a run has found, for its report; raises BadEdit, BadPrompts or ScoreFailed for what is not there yet."""
    from erase.evaluate.result import read_result
    from erase.evaluate.score import Scores
    from erase.report.findings import Findings
    from erase.report.grid import Pair
    from erase.report.verdict import NOT_SHOWN

    edit, recipe = load_edit(run), run.recipe.model_dump(mode="json")
    told = read_result(run.result_file) if run.recipe.score and run.result_file.is_file() else {}
    return Findings(
        name=run.recipe.name,
        task=run.task,
        pairs=tuple(Pair(before, after) for before, after in shots(run)),
        scores=read_scores(run) if run.recipe.score else Scores(()),
        recipe=recipe | ({NOT_SHOWN: told["not_shown"]} if told else {}),
        edit=asdict(edit.info) | {"content": edit.content},
        bounds=bounds_of(run),
        date=told["date"] if told else time_of(run.plan_file),
        proved=verdict_of(run),
    )


def bounds_of(run: Run) -> dict[str, float]:
    """What the run's figures have to reach: the recipe's bounds, and the default one for each other that is measured.

    None of them where the recipe has no gate or asks for no score.
    """
    if run.recipe.gate is None or not run.recipe.score:
        return {}
    measured = {figure.name for figure in read_scores(run).figures} & {"ua", "ira", "cra"}
    return dict.fromkeys(sorted(measured, reverse=True), DEFAULT_BOUND) | run.recipe.gate.bounds


def verdict_of(run: Run) -> Verdict | None:
    """The verdict of the run's result; None where the recipe has no gate or asks for no score. Raises ScoreFailed."""
    return run.read_result() if run.recipe.score and run.recipe.gate is not None else None


def check_gate(run: Run) -> None:
    """Raises GateFailed with why the images do not prove the bounds, and with what the edit has done.

    An edit that changes next to nothing, or harms what must stay, fails a run that has no bounds, too.
    """
    edit, verdict = load_edit(run), verdict_of(run)
    failed = [f"{reason.kind}: {reason.text}" for reason in verdict.reasons] if verdict else []
    if edit.info.effect is not None and verdict is None:  # else the result holds it
        failed += [f"{edit.info.method} has {one.said}: {one.text}" for one in edit.info.effect.problems]
    if failed:
        raise GateFailed(
            f"the gate of {run.recipe.name} has failed: {'; '.join(failed)}. All results are in {run.folder}."
        )


def shots(run: Run) -> list[tuple[ScoredImage, ScoredImage]]:
    """Each row's two images, as the scores and the grid see them; one that is missing or cut short is still told.

    Raises BadPrompts for one that is a picture, but not the one that was made.
    """
    from erase.evaluate.images import ScoredImage, group_of

    run.check_images()
    return [
        (
            ScoredImage(one.before, one.row, "before", group_of(one.row, run.task), run.image("before", one.before)),
            ScoredImage(one.after, one.row, "after", group_of(one.row, run.task), run.image("after", one.after)),
        )
        for one in run.read_plan()
    ]
