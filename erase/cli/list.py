"""`erase list`: which words a pipeline may use."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated

import typer

KINDS = ("methods", "models", "prompts", "pipelines", "scores", "exports", "protocols", "detectors", "declared")


def list_names(
    *,
    kind: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(KINDS)}; all of them if left out.", show_default=False)
    ] = None,
) -> None:
    """List methods, models, prompt sets, pipelines, scores, exports, protocols, detectors and declared prompt sets.

    [bold]erase list[/]            everything
    [bold]erase list methods[/]    one kind, a name a line
    """
    from erase import names
    from erase.errors import UnknownName

    if kind is not None and kind not in KINDS:
        raise UnknownName(names.nearest("kind", kind, list(KINDS)))
    for one in [kind] if kind else KINDS:
        if kind is None:
            typer.secho(one, bold=True)
        for name in names.known(one):
            typer.echo(f"{'' if kind else '  '}{name:<16} {describe(one, name)}".rstrip())


def describe(kind: str, name: str) -> str:
    """One line on what stands behind a name; reads files and imports none."""
    from erase import names

    if kind in ("prompts", "pipelines", "protocols", "declared"):
        return _described(names.data_folder(kind) / f"{name}.yaml")
    if kind == "models":
        return _heading(names.PACKAGE / "models" / name / "README.md")
    text = _docstring(names.PACKAGE / names._CODE[kind] / f"{name}.py")
    return f"{text}{_presets(name)}" if kind == "methods" else text


def _described(path: Path) -> str:
    import yaml

    return str(yaml.safe_load(path.read_text(encoding="utf-8")).get("description", ""))


def _presets(method: str) -> str:
    """Which embedded models have presets of a method."""
    import yaml

    from erase import names

    files = {model: names.PACKAGE / "models" / model / "presets.yaml" for model in names.known("models")}
    there = {model: yaml.safe_load(file.read_text(encoding="utf-8")) for model, file in files.items() if file.is_file()}
    having = [model for model, presets in there.items() if method in presets]
    return f" (presets of {', '.join(having)})" if having else ""


def _heading(card: Path) -> str:
    """The first heading of a model's card."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


def _docstring(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")
