"""`erase inspect`: what a file or folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    *,
    path: Annotated[Path, typer.Argument(help="A safetensors file or a model's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what a file or folder is: which edit is in it, by what method, its tensors and hashes.

    [bold]erase inspect runs/erase-style/model[/]
    [bold]erase inspect something.safetensors --json[/]
    """
    import json

    from erase.export._inspection import look_at

    found = look_at(path)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "what": found.what, **found.facts}, indent=1, ensure_ascii=False))
        return
    typer.secho(f"{path} is {found.what}", bold=True)
    width = max(map(len, found.facts), default=0)
    for name, value in found.facts.items():
        typer.echo(f"  {name:<{width}}  {value}")
