"""`erase undo`: an exported folder turned back into its source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def undo(
    *,
    folder: Annotated[Path, typer.Argument(help="A folder that `erase export` wrote.")],
    base: Annotated[str | None, typer.Option(help="The model that was edited.", show_default=False)] = None,
    reversal: Annotated[
        Path | None, typer.Option(help="A reversal file.", show_default="<folder>.reversal.safetensors")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The restored folder.", show_default="<folder>-restored")
    ] = None,
) -> None:
    """Restore the model that was edited, bit for bit.

    [bold]erase undo edited --base models/base[/]     from the base model
    [bold]erase undo edited[/]                        from what `erase export --option reversal=true` left beside it
    """
    from erase.errors import BadOption
    from erase.export._undo import undo as restore

    if base is not None and reversal is not None:
        raise BadOption("give --base or --reversal, not both.")
    folder = Path(str(folder).rstrip("/"))
    target = out or folder.with_name(f"{folder.name}-restored")
    typer.echo(f"restored  {restore(folder, target, base=base, reversal=reversal)}")
