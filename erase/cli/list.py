"""`erase list`: which words a pipeline may use, and what each of them takes."""

from __future__ import annotations

import ast
import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

KINDS = ("methods", "models", "prompts", "pipelines", "exports", "protocols", "detectors", "attacks")
_ALL = (*KINDS, "declared")
_WITH_OPTIONS = ("methods", "exports", "detectors", "attacks")
_WIDTH = 80


def list_names(
    *,
    kind: Annotated[
        str | None, typer.Argument(help=f"One of {', '.join(_ALL)}; all of them if left out.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="One of the kind: its options, or what is in it.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List methods, models, prompt sets, pipelines, exports, protocols, detectors and attacks; or one of them in full.

    [bold]erase list[/]                everything
    [bold]erase list methods[/]        one kind, a name a line
    [bold]erase list methods uce[/]    every option of a method: its type, its default, what it does
    """
    from erase import registry
    from erase.errors import UnknownName

    if kind is not None and kind not in _ALL:
        raise UnknownName(registry.nearest("kind", kind, list(_ALL)))
    if kind is not None and name is not None:
        _show_one(kind, name, as_json=as_json)
        return
    found = {one: {each: describe(one, each) for each in known(one)} for one in ([kind] if kind else KINDS)}
    if as_json:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for one, described in found.items():
        if kind is None:
            typer.secho(one, bold=True)
        _show_column(described, indent="" if kind else "  ")


def known(kind: str) -> list[str]:
    """All names of a kind; among prompt sets those that are declared and not carried come last."""
    from erase import registry

    return [*registry.known(kind), *(registry.known("declared") if kind == "prompts" else ())]


def describe(kind: str, name: str) -> str:
    """One line on what stands behind a name; reads files and imports none."""
    from erase import registry

    if name not in registry.own(kind):
        if kind == "prompts":
            return f"(declared: `erase fetch {name}`) {describe('declared', name)}"
        return f"(of the package {', '.join(registry.packages_of(kind, name))})"
    if kind in ("prompts", "pipelines", "protocols", "declared"):
        return str(_yaml(registry.data_folder(kind) / f"{name}.yaml").get("description", ""))
    if kind == "models":
        return _first_sentence(registry.PACKAGE / "models" / name / "README.md")
    module = ast.parse(registry.file_of(kind, name).read_text(encoding="utf-8"))
    text = (ast.get_docstring(module) or "").partition("\n")[0].rstrip(".")
    return f"{text}{_presets(name)}" if kind == "methods" else text


def _show_column(described: dict[str, str], *, indent: str) -> None:
    """Names and descriptions, the latter under each other; long ones are wrapped in a terminal, and whole elsewhere."""
    width = max(map(len, described), default=0)
    for name, text in described.items():
        line = f"{indent}{name:<{width}}  {text}".rstrip()
        if sys.stdout is not None and sys.stdout.isatty():
            line = _wrapped(line, indent=" " * (len(indent) + width + 2), width=shutil.get_terminal_size().columns)
        typer.echo(line)


def _show_one(kind: str, name: str, *, as_json: bool) -> None:
    from erase import registry

    place = "declared" if kind == "prompts" and name in registry.known("declared") else kind
    if not (by_path := registry.is_path(name, place)):
        if name not in registry.known(place):
            raise registry.unknown(place, name)
    else:
        registry.allow(name)
    facts: dict[str, Any] = {"kind": place, "name": name}
    facts["description"] = "" if by_path else describe(place, name)
    facts |= _facts(place, name)
    if as_json:
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    typer.secho(name, bold=True)
    for key, value in facts.items():
        if key == "options":
            _show_options(value)
        elif key == "description":
            typer.echo(_wrapped(value, indent="", width=_WIDTH))
        elif key not in ("kind", "name") and value not in ("", [], {}, ()):
            said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            typer.echo(_wrapped(f"{key:<12} {' '.join(said.split())[:600]}", indent=" " * 13, width=_WIDTH))


def _facts(kind: str, name: str) -> dict[str, Any]:
    """What is told of one name beside its description."""
    from dataclasses import asdict

    from erase import registry
    from erase.cli import _described

    if kind in _WITH_OPTIONS:
        presets = {"presets": list(_described.presets_of(name))} if kind == "methods" else {}
        return {**presets, "options": [asdict(option) for option in _described.options_of(kind, name)]}
    if kind == "models":
        folder = registry.PACKAGE / "models" / name
        return {"folder": str(folder), "presets": sorted(_yaml(folder / "presets.yaml"))}
    file = registry.find(kind, name, what=kind.removesuffix("s"))
    return {"file": str(file)} | {key: value for key, value in _yaml(file).items() if key != "description"}


def _show_options(options: list[dict[str, str]]) -> None:
    """A line an option, name, type and default under each other, and below it what it does."""
    name, kind = (max((len(one[key]) for one in options), default=0) for key in ("name", "type"))
    kind = min(kind, 32)
    for one in options:
        default = f"default {one['default']}" if one["default"] else "must be given"
        line = f"  {one['name']:<{name}}  {one['type']:<{kind}}  {default}"
        typer.echo(_wrapped(line, indent=" " * (name + 4), width=_WIDTH))
        if one["text"]:
            typer.echo(_wrapped(f"      {one['text']}", indent="      ", width=_WIDTH))
    if not options:
        typer.echo("  no options")


def _wrapped(text: str, *, indent: str, width: int) -> str:
    return textwrap.fill(text, max(width, len(indent) + 20), subsequent_indent=indent, drop_whitespace=True)


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _presets(method: str) -> str:
    """Which embedded models have presets of a method."""
    from erase import registry

    models = registry.PACKAGE / "models"
    having = [model for model in registry.known("models") if method in _yaml(models / model / "presets.yaml")]
    return f" (presets of {', '.join(having)})" if having else ""


def _first_sentence(card: Path) -> str:
    """The first sentence below the heading of a model's card."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    heading = next((number for number, line in enumerate(lines) if line.startswith("#")), len(lines))
    text = "\n".join(lines[heading + 1 :]).strip().partition("\n\n")[0]
    return " ".join(text.split()).partition(". ")[0].rstrip(".")
