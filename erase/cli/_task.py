"""Options that several commands share, each written once."""

from __future__ import annotations

from typing import Annotated

import typer

from erase import registry

Several = list[str]


def _allow(paths: Several | None) -> Several | None:
    for path in paths or ():
        registry.allow(path)
    return paths


Allow = Annotated[
    Several | None,
    typer.Option(
        "--allow",
        metavar="FILE.py",
        callback=_allow,
        help="Trust this file: its code runs where a pipeline or an option names it; repeatable.",
        show_default=False,
    ),
]
