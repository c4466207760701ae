"""`erase verify-manifest`: whether an exported folder is what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify_manifest(*, folder: Annotated[Path, typer.Argument(help="A folder that `erase export` wrote.")]) -> None:
    """Check every file and every changed tensor of an exported folder against its manifest.

    A manifest tells damage and mix-ups; it is no signature: whoever changes a file can change it too.

    [bold]erase verify-manifest runs/erase-style/model[/]
    """
    from erase.export.parts.manifest import verify

    manifest = verify(folder)
    typer.echo(
        f"{folder} is what its manifest says: {len(manifest.files)} files, {len(manifest.changed)} changed tensors"
    )
