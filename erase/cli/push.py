"""`erase push`: an exported folder into a repository of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    *,
    folder: Annotated[Path, typer.Argument(help="A folder that `erase export` wrote.")],
    to: Annotated[str, typer.Option(help="The repository, as owner/name.")],
    private: Annotated[bool, typer.Option(help="Whether a new repository is private.")] = True,
    revision: Annotated[str | None, typer.Option(help="A branch, if not the main one.", show_default=False)] = None,
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Ask for a merge instead.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be uploaded.")] = False,
) -> None:
    """Upload an exported folder after checking it against its manifest; only files listed there are uploaded.

    [bold]erase push runs/erase-style/model --to me/my-model --dry-run[/]
    """
    from erase.export.parts.hub import plan, upload

    planned = plan(folder, to)
    for file in planned.files:
        typer.echo(f"{file.size:>14,}  {file.name}")
    total = sum(file.size for file in planned.files)
    if dry_run:
        typer.echo(f"{len(planned.files)} files, {total:,} bytes, would go to {to}; nothing was sent")
        return
    place = upload(planned, private=private, revision=revision, pull_request=pull_request)
    typer.echo(f"{len(planned.files)} files, {total:,} bytes  {place}")
