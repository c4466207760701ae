"""`erase compare`: several runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from erase.run.store import Run


def compare(
    *,
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of runs, or their names under runs/.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page; a .json and a .csv go beside it.")] = Path(
        "compare.html"
    ),
) -> None:
    """Compare runs of the same prompts and seeds: a table, and a page with the trade-off and the images.

    [bold]erase compare runs/uce runs/uce-weak runs/esd -o compare.html[/]
    """
    from rich.console import Console

    from erase.cli._runs import check_writable
    from erase.report.comparison import Comparison, comparison_table
    from erase.report.comparison_page import write_comparison
    from erase.run import steps
    from erase.run.store import open_run

    check_writable(out)
    opened = [open_run(folder) for folder in runs]
    comparison = Comparison({label: steps.findings(run) for label, run in labelled(opened).items()})
    Console().print(comparison_table(comparison))
    write_comparison(comparison, out)
    typer.echo(f"compare  {out}")


def labelled(runs: list[Run]) -> dict[str, Run]:
    """Each different run by its folder's name, or by its whole path where two have the same name."""
    folders = {run.folder.resolve(): run for run in runs}
    names = [folder.name for folder in folders]
    return {folder.name if names.count(folder.name) == 1 else str(folder): run for folder, run in folders.items()}
