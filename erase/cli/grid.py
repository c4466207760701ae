"""`erase grid`: only the before/after picture of a run."""

from __future__ import annotations

import typer

from erase.cli._runs import DEFAULT_RUN, RunFolder, do_step


def grid(*, run: RunFolder = DEFAULT_RUN) -> None:
    """Draw a run's before/after grid again.

    [bold]erase grid runs/erase-style[/]
    """
    typer.echo(f"grid  {do_step(run, 'grid').grid_file}")
