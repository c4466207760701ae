"""`erase score`: a run's images judged again."""

from __future__ import annotations

import typer

from erase.cli import _task
from erase.cli._runs import DEFAULT_RUN, RunFolder, do_step


def score(*, run: RunFolder = DEFAULT_RUN, allow: _task.Allow = None) -> None:
    """Judge a run's images again and check its gate; an existing grid and report are updated.

    [bold]erase score runs/erase-style[/]
    """
    scored = do_step(run, "score")

    from rich.console import Console

    from erase.report.table import table
    from erase.run import steps

    Console().print(table(steps.read_scores(scored)))
    typer.echo(f"scores  {scored.scores_file}")
    steps.check_gate(scored)
