"""`erase inspect`: what a file or folder is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from erase.export.parts.inspection import Finding


def inspect(
    *,
    path: Annotated[Path, typer.Argument(help="A safetensors file, a model's folder, or a run's (or its name).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what a file or folder is: which edit is in it, the method, its tensors and hashes.

    [bold]erase inspect runs/erase-style/model[/]
    [bold]erase inspect something.safetensors --json[/]
    [bold]erase inspect erase-style[/]
    """
    import json

    from erase.export.parts.inspection import look_at
    from erase.run.store import RUNS

    # an exported model has a recipe.yaml as well, and a manifest beside it
    places = [one for one in (path, RUNS / path) if not (one / "manifest.json").is_file()]
    run = next((one for one in places if (one / "recipe.yaml").is_file()), None)
    found = look_at(path) if run is None else _look_at_run(run)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "what": found.what, **found.facts}, indent=1, ensure_ascii=False))
        return
    typer.secho(f"{path} is {found.what}", bold=True)
    width = max(map(len, found.facts), default=0)
    for name, value in found.facts.items():
        typer.echo(f"  {name:<{width}}  {value}")


def _look_at_run(folder: Path) -> Finding:
    """What a run is, and how far."""
    from erase.export.parts.inspection import Finding
    from erase.run import steps
    from erase.run.store import open_run

    run = open_run(folder)
    recipe = run.recipe
    asked = [name for name, step in steps.STEPS.items() if step.is_asked(recipe)]
    facts = {
        "pipeline": recipe.name,
        "model": recipe.model,
        "task": ", ".join(f"{target.name} → {target.anchor or 'nothing'}" for target in run.task.targets),
        "keeps": f"{len(run.task.keeps)} concepts and {len(run.task.prompts)} prompts",
        "edit": {"method": recipe.edit.method, "strength": recipe.edit.strength, **recipe.edit.options},
        "done": [name for name in asked if steps.is_done(name, run)],
        "to do": [name for name in asked if not steps.is_done(name, run)],
        **{name: str(path) for name, path in steps.results(run).items() if name != "edit"},
    }
    return Finding("a run of erase", facts)
