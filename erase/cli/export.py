"""`erase export`: only an export, of a run or of a model and an edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from erase.cli import _task
from erase.cli._runs import DEFAULT_RUN

Several = list[str]


def export(
    *,
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder, or its name under runs/.", show_default="runs/erase-style")
    ] = None,
    to: Annotated[str, typer.Option(help="One of `erase list exports`.")] = "folder",
    model: Annotated[str | None, typer.Option("--model", "-m", help="A model, instead of a run.")] = None,
    lora: _task.Loras = None,
    edit: Annotated[Path | None, typer.Option("--edit", "-e", help="An edit, a LoRA, or edited tensors.")] = None,
    option: Annotated[Several | None, typer.Option(help="An export option, such as dtype=float16; repeatable.")] = None,
    strength: Annotated[float, typer.Option(help="Strength of the edit; 1 is as it was made.")] = 1.0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to; needed unless it is a run's.")] = None,
    as_json: _task.Json = False,
) -> None:
    """Export an edited model or its edit.

    [bold]erase export erase-style --to folder -o edited[/]
    [bold]erase export -m emoji -e noto.safetensors -o edited[/]
    [bold]erase export -m emoji -e noto.safetensors --to lora --option rank=16 -o noto-lora[/]
    """
    from erase.cli._runs import check_writable
    from erase.cli._task import parse_option
    from erase.errors import BadEdit
    from erase.foreign import edit_in, with_loras
    from erase.models import open_model
    from erase.run import steps
    from erase.run.store import RUNS, open_run

    check_writable(out or RUNS)
    if (model is None) != (edit is None) or (model and run):
        raise BadEdit("give a run's folder, or both --model and --edit.")
    if model is None or edit is None:
        opened = open_run(run or DEFAULT_RUN)
        base, made, target = opened.model, steps.load_edit(opened), out or opened.exported(to)
        known = steps.export_options(opened, to) if strength == 1.0 else {}
    else:
        base, target, known = with_loras(open_model(model), lora or []), out or Path(to), {}
        made = edit_in(edit, base)
    made = made if strength == 1.0 else made.scaled(strength)
    options = known | dict(parse_option(text) for text in option or [])
    place = steps.export(to, base, made, target=target, options=options)
    if as_json:
        typer.echo(json.dumps({"to": to, "path": str(place), "edit": made.content}, ensure_ascii=False))
        return
    typer.echo(f"{to}  {place}")
    if to == "lora":
        from erase.export.lora import summary

        typer.echo(f"      {summary(place)}")
