"""`erase undo`: an exported folder or single file turned back into its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def undo(
    *,
    exported: Annotated[Path, typer.Argument(help="A folder or single file that `erase export` wrote.")],
    base: Annotated[
        str | None, typer.Option("--model", "-m", "--base", help="The model that was edited.", show_default=False)
    ] = None,
    reversal: Annotated[
        Path | None, typer.Option(help="A reversal file.", show_default="<exported>.reversal.safetensors")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to.", show_default="<exported>-restored")
    ] = None,
) -> None:
    """Restore the model that was edited, bit for bit.

    [bold]erase undo edited --base models/base[/]     from the base model
    [bold]erase undo edited[/]                        from what `erase export --option reversal=true` left beside it
    """
    from erase.errors import BadModel, BadOption
    from erase.export.parts.undo import undo as restore
    from erase.export.parts.undo import undo_file

    if base is not None and reversal is not None:
        raise BadOption("give --base or --reversal, not both.")
    if not exported.name or not exported.exists():
        raise BadModel(f'"{exported}" is no export; expected a folder or a single file that `erase export` wrote.')
    is_file = exported.is_file()
    name = f"{exported.stem}-restored.safetensors" if is_file else f"{exported.name}-restored"
    turn_back = undo_file if is_file else restore
    place = turn_back(exported, out or exported.with_name(name), base=base, reversal=reversal)
    typer.echo(f"restored  {place}")
