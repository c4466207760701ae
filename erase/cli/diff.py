"""`erase diff`: which tensors of two models or files differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from erase.export.parts.difference import Difference


def diff(
    *,
    one: Annotated[Path, typer.Argument(help="A model's folder or a safetensors file.")],
    other: Annotated[Path, typer.Argument(help="Another; a folder and a single-file checkpoint fit each other.")],
    rank: Annotated[bool, typer.Option(help="Estimate the rank of each change; takes longer.")] = True,
) -> None:
    """Show which tensors differ, and by how much.

    Relative is the change's Frobenius norm by the first tensor's; a rank is that above the rounding of the weights.

    [bold]erase diff models/base runs/erase-style/model[/]
    """
    from erase.export.parts.difference import compare

    found = compare(one, other, ranks=rank)
    for difference in found.differences:
        typer.echo(_line(difference))
    beside = f"; {found.beside} of the single file have no place in a folder" if found.beside else ""
    typer.secho(f"{len(found.differences)} tensors differ, {found.same} are the same bit for bit{beside}", bold=True)


def _line(one: Difference) -> str:
    if one.why.startswith(("only", "[")):
        return f"{one.name}  {one.why}"
    rank = "" if one.rank is None else f"  rank {one.rank}"
    why = f"  ({one.why})" if one.why else ""
    return f"{one.name}  relative {one.relative:.3g}  largest {one.largest:.3g}{rank}{why}"
