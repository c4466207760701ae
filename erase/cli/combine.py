"""`erase combine`: several edits as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def combine(
    *,
    edits: Annotated[list[str], typer.Argument(help="Edits' files, each with a strength behind a colon if not 1.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The sum's file.")],
) -> None:
    """Add edits of the same base model, each at its own strength; a negative strength subtracts.

    [bold]erase combine artist.safetensors unsafe.safetensors:0.5 -o both.safetensors[/]
    [bold]erase combine both.safetensors artist.safetensors:-1 -o rest.safetensors[/]
    """
    import functools
    import operator

    from erase.cli._runs import check_writable
    from erase.edit import Edit
    from erase.errors import RunConflict

    check_writable(out)
    if out.exists():
        raise RunConflict(f"{out} exists already; give another file by --out.")
    parts = [(Edit.load(file), strength) for file, strength in map(parse_part, edits)]
    scaled = [edit if strength == 1.0 else edit.scaled(strength) for edit, strength in parts]
    functools.reduce(operator.add, scaled).save(out)
    typer.echo(f"edit  {out}")


def parse_part(text: str) -> tuple[Path, float]:
    """File and strength of `file:strength`; raises BadOption."""
    import math

    from erase.errors import BadOption

    file, colon, number = text.rpartition(":")
    if not colon or Path(text).is_file():
        return Path(text), 1.0
    try:
        strength = float(number)
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise BadOption(f'"{text}" has the strength "{number}"; expected file:number, such as edit.safetensors:0.5.')
    return Path(file), strength
