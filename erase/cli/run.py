"""`erase run`: a whole pipeline, from the edit to its export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli._task import Allow

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
    allow: Allow = None,
) -> None:
    """Run a pipeline: edit, generate, score, grid, report, export.

    A run that was stopped goes on where it stopped; a finished one says so and does nothing twice.

    [bold]erase run[/]                                 erase a style from the embedded model
    [bold]erase run erase-object[/]                    another of `erase list pipelines`
    [bold]erase run mine.yaml --out runs/mine[/]       a pipeline of your own
    [bold]torchrun --nproc-per-node 2 -m erase run[/]  training and images by two processes, the same ones
    """
    from rich.console import Console

    from erase import steps
    from erase.cli._runs import begin
    from erase.cli._watch import ShownWatch

    started = time.monotonic()
    current = begin(pipeline, out)
    if not current.place.is_first:  # another process of several, which tells nothing
        steps.help_out(current)
        return
    with current.alone(), ShownWatch() as watch, current.place.present():
        current.begin()
        worked = steps.do_all(current, watch)
    seconds = time.monotonic() - started
    outcome = f"finished in {seconds:.0f} s" if worked else "was finished already; nothing was left to do"
    show_summary(Console(), current, outcome)
    steps.check_gate(current)


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
