"""`erase run`: a whole pipeline, from the edit to its export, or one made of options."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli import _task
from erase.cli._drawing import NONE, Settings, draws

if TYPE_CHECKING:
    from rich.console import Console

    from erase.run.pipeline import Pipeline
    from erase.run.store import Run
    from erase.task import Task

Several = list[str]


Pipelines = Annotated[
    str | None,
    typer.Argument(help="A pipeline's name (see `erase list pipelines`) or a .yaml.", show_default="erase-style"),
]
Given = Annotated[Several | None, typer.Option("--with", "-w", help="What judges: clip=FOLDER or callable=FILE.py.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder.", show_default="runs/<name>")]


@draws
def run(
    *,
    pipeline: Pipelines = None,
    model: _task.Model = "emoji",
    lora: _task.Loras = None,
    kind: _task.Kind = "style",
    target: _task.Targets = None,
    anchor: _task.Anchors = None,
    synonym: _task.Synonyms = None,
    keep: _task.Keeps = None,
    given: Given = None,
    out: Out = None,
    settings: _task.Settings = None,
    dry_run: _task.DryRun = False,
    as_json: _task.Json = False,
    device: _task.Device = None,
    dtype: _task.DtypeIfGiven = None,
    quiet: _task.Quiet = False,
    verbose: _task.Verbose = False,
    allow: _task.Allow = None,
    drawing: Settings = NONE,
) -> None:
    """Run a pipeline: edit, generate, score, grid, report, export. Exit code 3 if the images do not prove the erasure.

    A stopped run resumes where it stopped; a finished one does nothing. With --target no pipeline file is needed:
    prompts, judge and limits follow from the model and the kind, and the recipe is saved with the result.

    [bold]erase run[/]                                 erase a style from the embedded model
    [bold]erase run erase-object[/]                    another of `erase list pipelines`
    [bold]erase run mine.yaml --out runs/mine[/]       a pipeline of your own
    [bold]erase run -m sd15 -t "Van Gogh"[/]           a model of your own, without any file
    [bold]erase run --set edit.method=uce --dry-run[/] what would be made with another method
    [bold]torchrun --nproc-per-node 2 -m erase run[/]  training and images by two processes, the same ones
    """
    from erase.cli._runs import begin
    from erase.run import steps

    words = {"anchors": anchor or [], "synonyms": synonym or [], "keeps": keep or []}
    chosen = choose(pipeline, model, kind, targets=target or [], words=words)
    changes = _task.parse_settings([*(settings or []), *([f"generate.dtype={dtype}"] if dtype else [])])
    changes |= {"loras": lora} if lora else {}
    changes |= {f"generate.{name}": value for name, value in drawing.items()}
    current = begin(chosen, out, changes | judged_by(given or []))
    if dry_run:
        _task.show_plan(current, timed=True)
    elif not current.place.is_first:  # another process of several, which tells nothing
        steps.work_as_rank(current)
    else:
        finish(current, quiet=quiet, as_json=as_json)


def choose(
    pipeline: str | None, model: str, kind: str, *, targets: Several, words: Mapping[str, Several]
) -> str | Pipeline:
    """The pipeline that is named, or that of the task that options describe; raises BadTask."""
    from erase.errors import BadTask

    if pipeline is not None and (targets or any(words.values())):
        raise BadTask("give a pipeline, or --target with its options, not both; a pipeline names its own.")
    if not targets:
        if any(words.values()):
            raise BadTask("--anchor, --synonym and --keep go with --target; name what to erase.")
        return pipeline or "erase-style"
    return recipe_of(
        model,
        _task.make_task(kind, targets, anchors=words["anchors"], synonyms=words["synonyms"], keeps=words["keeps"]),
    )


def finish(run: Run, *, quiet: bool, as_json: bool) -> None:
    """Does what is left of a run and tells its results; raises GateFailed."""
    from rich.console import Console

    from erase.cli._watch import ShownProgress
    from erase.run import steps

    started = time.monotonic()
    with run.alone(), ShownProgress(quiet=quiet) as watch, run.place.present():
        run.begin()
        worked = steps.do_all(run, watch)
    seconds = time.monotonic() - started
    outcome = f"finished in {seconds:.0f} s" if worked else "was finished already; nothing was left to do"
    tell_programs(run) if as_json else show_summary(Console(), run, outcome)
    steps.check_gate(run)


def tell_programs(run: Run) -> None:
    """Prints the verdict and where everything lies as JSON; no verdict of a run that asks for no gate."""
    from dataclasses import asdict

    from erase.evaluate.result import plain
    from erase.run import steps

    results = {what: str(path) for what, path in steps.results(run).items()}
    told: dict[str, object] = {"run": str(run.folder), "verdict": None, "results": results}
    if (verdict := steps.verdict_of(run)) is not None:
        reasons = [asdict(reason) for reason in verdict.reasons]
        checks = [asdict(check) | {"passed": check.passed} for check in verdict.checks]
        told |= {"verdict": "failed" if verdict.exit_code else "passed", "exit_code": verdict.exit_code}
        told |= {"reasons": reasons, "checks": checks}
    typer.echo(json.dumps(plain(told), indent=1, ensure_ascii=False, allow_nan=False))


def recipe_of(model: str, task: Task) -> Pipeline:
    """The pipeline of a task; its prompts, judge and limits are those of the model and the kind."""
    from erase.config.keeps import KeepsForm
    from erase.run.pipeline import Pipeline, TargetForm, TaskForm
    from erase.task import KINDS

    words = re.sub(r"[^a-z0-9]+", "-", "-".join(task.names).lower()).strip("-")
    kept = {kind: tuple(keep.name for keep in task.keeps if keep.kind == kind) for kind in KINDS}
    targets = [TargetForm(name=t.name, anchor=t.anchor, synonyms=t.synonyms, prompts=t.prompts) for t in task.targets]
    return Pipeline(
        name=f"erase-{words[:40].strip('-') or 'concept'}",
        model=model,
        task=TaskForm(kind=task.targets[0].kind, targets=tuple(targets), keeps=KeepsForm(**kept, prompts=task.prompts)),
    )


def judged_by(given: Several) -> dict[str, object]:
    """The pipeline's keys for what the command line gives to judge by."""
    from erase import registry
    from erase.cli.verify import parse_given

    paths = parse_given(given)
    if "callable" in paths:  # who names code here trusts it
        registry.allow(paths["callable"])
    return {f"verify.with.{name}": str(path) for name, path in paths.items()}


def show_summary(console: Console, run: Run, outcome: str) -> None:
    """Prints the verdict in a line, the figures, where everything lies, and what can be done next."""
    from rich.markup import escape

    from erase.evaluate.attacked import attack_lines, read_attacks, read_not_run
    from erase.evaluate.result import outcomes_of, read_result
    from erase.report.table import figures_line, table, target_line
    from erase.report.verdict import reach_verdict
    from erase.run import steps

    scores = steps.read_scores(run) if run.scores_file.is_file() else None
    verdict = reach_verdict(steps.findings(run))
    mark = {"passed": "[bold green]PASSED[/]", "failed": "[bold red]FAILED[/]", "open": "[bold]DONE[/]"}[verdict.state]
    figures = f" ({figures_line(scores)})" if scores and figures_line(scores) else ""
    console.print(f"\n{mark}  {escape(verdict.headline)}{figures}", highlight=False, soft_wrap=True)
    if scores:
        console.print(table(scores))
    if run.result_file.is_file() and scores:
        outcomes = outcomes_of(read_result(run.result_file))
        where = run.folder, run.recipe.attack
        for line in (*attack_lines(read_attacks(*where)), *read_not_run(*where)):
            console.print(escape(line), highlight=False, soft_wrap=True)
        console.print(target_line(outcomes, scores), highlight=False, soft_wrap=True)
    targets = ", ".join(f"{target.name} → {target.anchor or 'nothing'}" for target in run.task.targets)
    console.print(f"[bold]{escape(run.recipe.name)}[/] {outcome}: {escape(targets)}", highlight=False)
    for what, path in steps.results(run).items():
        console.print(f"  {what:<7} {escape(str(path))}", highlight=False, soft_wrap=True)
    folder = escape(str(run.folder))
    console.print(
        f"next: open {folder}/report.html; erase export {folder} --to lora; erase inspect {folder}/edit.safetensors",
        highlight=False,
        soft_wrap=True,
    )
