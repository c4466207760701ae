"""Opens the run that a command was given, does one of its steps, and looks where it is to write beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from erase.run.pipeline import Pipeline
    from erase.run.store import Run
import os
import tempfile

from erase.errors import CannotWrite

RunFolder = Annotated[
    Path, typer.Argument(help="A run's folder, or its name under runs/.", show_default="runs/erase-style")
]
DEFAULT_RUN = Path("erase-style")
_LONGEST = 255 - 24  # bytes of a name, what is added to it while a file is not whole being counted


def begin(pipeline: str | Pipeline, folder: Path | None, changes: Mapping[str, Any] | None = None) -> Run:
    """The run of a pipeline, to be begun or taken up again, after the first of several processes has checked it."""
    from erase.run import steps
    from erase.run.pipeline import changed, load_pipeline, resolve
    from erase.run.store import RUNS, run_in

    check_writable(folder or RUNS)
    given = load_pipeline(pipeline, changes) if isinstance(pipeline, str) else changed(pipeline, changes or {})
    run = run_in(resolve(given), folder)
    if run.place.is_first:
        tell_notes(given.notes())
        if not run.is_begun:
            steps.check(run)
    return run


def tell_notes(notes: Iterable[str]) -> None:
    """Prints what a reader may not expect of prompt sets, a line each, on the standard error stream."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def do_step(folder: Path, name: str, *, quiet: bool = False) -> Run:
    """The run, after one of its steps was done again; of several processes the others help with its images and end."""
    from erase.cli._watch import ShownProgress
    from erase.run import steps
    from erase.run.store import open_run

    run = open_run(folder)
    if not run.place.is_first:
        steps.work_as_rank(run)
        raise typer.Exit
    with run.alone(), ShownProgress(quiet=quiet) as watch, run.place.present():
        steps.do(name, run, watch)
        if name == "score":
            steps.refresh(run, watch)
    return run


def check_writable(target: Path) -> None:
    """Raises CannotWrite if no file or folder can be written at a path; leaves nothing there."""
    shown = str(target) if len(str(target)) <= 100 else f"{str(target)[:97]}..."
    if any(len(os.fsencode(part)) > _LONGEST for part in target.parts):
        raise CannotWrite(f"nothing can be written at {shown}: a name in it has more than {_LONGEST} bytes.")
    try:
        there = next(one for one in (target, *target.absolute().parents) if one.exists())
        folder = there.parent if there == target and there.is_file() else there
        if not folder.is_dir():
            raise CannotWrite(f"nothing can be written at {shown}: {folder} is a file; give a path of folders.")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise CannotWrite(
            f"nothing can be written at {shown} ({problem.strerror}); give another place by --out."
        ) from problem
