"""`erase run`: a whole pipeline, from the edit to its export."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli import _task

if TYPE_CHECKING:
    from rich.console import Console

    from erase.runs import Run


def run(
    *,
    pipeline: Annotated[str, typer.Argument(help="A pipeline's name (see `erase list pipelines`) or a .yaml.")] = (
        "erase-style"
    ),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder.", show_default="runs/<name>")
    ] = None,
    settings: _task.Settings = None,
    dry_run: _task.DryRun = False,
    as_json: _task.Json = False,
    device: _task.Device = None,
    dtype: _task.Dtype | None = None,
    quiet: _task.Quiet = False,
    verbose: _task.Verbose = False,
    allow: _task.Allow = None,
) -> None:
    """Run a pipeline: edit, generate, score, grid, report, export.

    A run that was stopped goes on where it stopped; a finished one says so and does nothing twice.

    [bold]erase run[/]                                 erase a style from the embedded model
    [bold]erase run erase-object[/]                    another of `erase list pipelines`
    [bold]erase run mine.yaml --out runs/mine[/]       a pipeline of your own
    [bold]erase run --set edit.method=uce --dry-run[/] what would be made with another method
    [bold]torchrun --nproc-per-node 2 -m erase run[/]  training and images by two processes, the same ones
    """
    from rich.console import Console

    from erase import steps
    from erase.cli._runs import begin
    from erase.cli._watch import ShownWatch

    started = time.monotonic()
    changes = _task.parse_settings([*(settings or []), *([f"generate.dtype={dtype}"] if dtype else [])])
    current = begin(pipeline, out, changes)
    if dry_run:
        _task.show_plan(current)
        return
    if not current.place.is_first:  # another process of several, which tells nothing
        steps.help_out(current)
        return
    with current.alone(), ShownWatch(quiet=quiet) as watch, current.place.present():
        current.begin()
        worked = steps.do_all(current, watch)
    seconds = time.monotonic() - started
    outcome = f"finished in {seconds:.0f} s" if worked else "was finished already; nothing was left to do"
    tell_programs(current) if as_json else show_summary(Console(), current, outcome)
    steps.check_gate(current)


def tell_programs(run: Run) -> None:
    """Prints where everything lies as JSON."""
    from erase import steps

    results = {what: str(path) for what, path in steps.results(run).items()}
    typer.echo(json.dumps({"run": str(run.folder), "results": results}, indent=1, ensure_ascii=False))


def show_summary(console: Console, run: Run, outcome: str) -> None:
    """Prints the table of scores and where everything lies."""
    from erase import steps
    from erase.evaluate.table import table

    if run.scores_file.is_file():
        console.print()
        console.print(table(steps.read_scores(run)))
    targets = ", ".join(f"{target.name} → {target.anchor or 'nothing'}" for target in run.task.targets)
    console.print(f"\n[bold]{run.recipe.name}[/] {outcome}: {targets}", highlight=False)
    for what, path in steps.results(run).items():
        console.print(f"  {what:<7} {path}", highlight=False, soft_wrap=True)
