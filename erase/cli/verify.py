"""`erase verify`: the gate. Exit code 0 only if the images prove that the concept is gone and the rest is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli import _task

if TYPE_CHECKING:
    from rich.console import Console

    from erase.evaluate.verify import Result
    from erase.task import Task

Several = list[str]


def verify(
    edited: Annotated[Path, typer.Argument(help="An edit, an edited model, its UNet's tensors or a LoRA.")],
    *,
    base: Annotated[str, typer.Option("--model", "-m", "--base", "-b", help="The model before the edit.")] = "emoji",
    protocol: Annotated[str, typer.Option("--protocol", help="One of `erase list protocols`, or a .yaml.")] = ("gate"),
    kind: Annotated[str, typer.Option(help="With --target: style, object, unsafe or identity.")] = "style",
    target: Annotated[
        Several | None, typer.Option("--target", "-t", help="What was erased, if the edit does not say; repeatable.")
    ] = None,
    synonym: Annotated[Several | None, typer.Option(help="Another word for the one --target; repeatable.")] = None,
    keep: Annotated[Several | None, typer.Option("--keep", "-k", help="What must stay; repeatable.")] = None,
    given: Annotated[
        Several | None, typer.Option("--with", "-w", help="A file or folder that the protocol needs, as name=PATH.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the images and of verdict.json.")] = Path(
        "verify"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print verdict.json instead of the table.")] = False,
    device: _task.Device = None,
    dtype: _task.Dtype = "float32",
    quiet: _task.Quiet = False,
    verbose: _task.Verbose = False,
    allow: _task.Allow = None,
) -> None:
    """Verify an edit: exit code 0 if the concept is gone and the rest is not, 3 with the reasons otherwise.

    [bold]erase verify runs/erase-style/edit.safetensors -m emoji[/]
    [bold]erase verify edited -m sd15 --protocol object --with classifier=resnet-50[/]
    """
    named = (kind, target or [], synonym or [], keep or [])
    result = _verify(edited, base, protocol, named=named, given=parse_given(given or []), out=out, drawn=(dtype, quiet))
    if result is None:  # another process of several, which has made its share of the images
        return
    if json:
        typer.echo((out / "verdict.json").read_text(encoding="utf-8"))
    else:
        from rich.console import Console

        show(Console(), result)
    if result.verdict.exit_code:
        raise typer.Exit(result.verdict.exit_code)


def _verify(
    edited: Path,
    base: str,
    protocol: str,
    *,
    named: tuple[str, Several, Several, Several],
    given: dict[str, Path],
    out: Path,
    drawn: tuple[str, bool],
) -> Result | None:
    from erase.cli._places import check_writable
    from erase.cli._watch import ShownWatch
    from erase.evaluate import verify as verifying
    from erase.evaluate.looking import Given
    from erase.evaluate.protocol import load_protocol
    from erase.evaluate.ranks import this_place
    from erase.models import open_model

    check_writable(out)
    chosen, model, place = (
        load_protocol(protocol),
        open_model(base, torch_dtype=_task.dtype_of(drawn[0])),
        this_place(out),
    )
    opened = verifying.open_edited(edited, model)
    opened.model.torch_dtype = model.torch_dtype
    kind, targets, synonyms, keeps = named
    task = choose_task(opened.task, kind, targets, synonyms=synonyms, keeps=keeps)
    judged = Given(given, model.judge_folder)
    if not place.is_first:
        verifying.draw_share(model, opened, chosen, task=task, given=judged, folder=out, place=place)
        return None
    with ShownWatch(quiet=drawn[1]) as watch, place.present():
        watch.begin("verify", chosen.title)
        return verifying.verify(
            model, opened, chosen, task=task, given=judged, folder=out, count=watch.count, place=place
        )


def choose_task(own: Task | None, kind: str, targets: Several, *, synonyms: Several, keeps: Several) -> Task:
    """The task that the options name, else the edit's own; raises BadTask if there is neither."""
    from erase.cli._task import make_task, with_synonyms
    from erase.errors import BadTask
    from erase.task import Task

    if not targets:
        if own is None:
            raise BadTask("the edit does not say what it erases; name it by --target and --kind.")
        task = Task(own.targets, keeps) if keeps else own
    else:
        task = make_task(kind, targets, anchors=[], keeps=keeps)
    if not synonyms:
        return task
    return with_synonyms(task, synonyms)


def parse_given(texts: Several) -> dict[str, Path]:
    """Names and paths of `name=PATH`; raises BadOption, also for a path that does not exist."""
    from erase import registry
    from erase.errors import BadOption

    given = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name.strip():
            raise BadOption(f'--with "{text}" is not of the form name=PATH, such as clip=clip-vit-large-patch14.')
        given[name.strip()] = registry.path_of(path.strip())
        if not given[name.strip()].exists():
            raise BadOption(f'--with "{text}": {path} does not exist; give a local file or folder.')
    return given


def show(console: Console, result: Result) -> None:
    """Prints the checks, the totals, and the verdict in words."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"protocol {result.protocol.title}", title_justify="left", header_style="bold", pad_edge=False)
    for heading in ("check", "value", "95 % interval", "images", "asked", ""):
        table.add_column(heading, justify="left" if heading in ("check", "") else "right")
    for check in result.verdict.checks:
        interval = f"{100 * check.low:.1f} - {100 * check.high:.1f}"
        mark = "[green]held[/]" if check.passed else "[red]not held[/]"
        value = f"{100 * check.value:.1f} %"
        table.add_row(escape(check.name), value, interval, str(check.n), f"≥ {100 * check.limit:.0f} %", mark)
    console.print(table)
    for total in result.totals:
        moved = " → ".join(number(value, total.unit) for value in (total.before, total.after))
        console.print(f"  {total.name:<24} {moved}  ({total.better} is better)", highlight=False)
    for asked in filter(None, (one.text for one in result.asked)):
        console.print(f"  {escape(asked)}", highlight=False)
    names = escape(", ".join(result.task.names))
    for reason in result.verdict.reasons:
        console.print(f"[red]{reason.kind}[/]: {escape(reason.text)}", highlight=False)
    if lacking := len(result.verdict.unscored):
        console.print(f"[red]{lacking} pairs lack an image and count against the edit; verdict.json lists them[/]")
    answer = "[bold red]FAILED[/]" if result.verdict.reasons else "[bold green]PASSED[/]"
    console.print(f"{answer}  {names}  {escape(str(result.folder / 'verdict.json'))}", highlight=False, soft_wrap=True)


def number(value: float, unit: str) -> str:
    """A total as people read it; a dash where nothing was asked."""
    if value != value:
        return "-"
    return {"share": f"{100 * value:.1f} %", "count": f"{value:.0f}"}.get(unit, f"{value:.3f}")
