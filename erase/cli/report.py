"""`erase report`: a run's page for people, and the same as JSON and CSV."""

from __future__ import annotations

import typer

from erase.cli._runs import DEFAULT_RUN, RunFolder, do_step


def report(*, run: RunFolder = DEFAULT_RUN) -> None:
    """Write a run's report again: report.html, report.json, figures.csv and images.csv.

    The page holds everything it shows and fetches nothing, so it can be sent as it is.

    [bold]erase report runs/erase-style[/]
    """
    typer.echo(f"report  {do_step(run, 'report').report_file}")
