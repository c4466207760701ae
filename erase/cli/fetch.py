"""`erase fetch`: a declared prompt set, from where its manifest says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fetch(
    name: Annotated[str, typer.Argument(help="A declared prompt set; see `erase list declared`.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the file goes.", show_default="<name>.csv")
    ] = None,
    url: Annotated[str, typer.Option(help="Another address of the same file.")] = "",
) -> None:
    """Download a declared prompt set; a file that does not match its declaration is refused.

    [bold]erase fetch small-imagenet[/]
    [bold]erase verify e.safetensors --protocol object -w small-imagenet=small-imagenet.csv -w classifier=resnet-50[/]
    """
    from erase.cli._runs import check_writable
    from erase.config.fetching import fetch as fetch_set

    target = out or Path(f"{name}.csv")
    check_writable(target)
    found = fetch_set(name, target, url=url)
    typer.echo(f"{name}  {target}  {len(found.lines)} prompts, {found.licence}, sha256 {found.sha256[:12]}")
