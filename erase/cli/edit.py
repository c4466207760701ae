"""`erase edit`: only the edit, of a pipeline or from options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erase import registry
from erase.cli._task import Allow

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.task import Task

Several = list[str]


def edit(
    *,
    pipeline: Annotated[str | None, typer.Argument(help="A pipeline's name or a .yaml.", show_default=False)] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="An embedded model, a folder, a single file or an id of the hub.")
    ] = "emoji",
    method: Annotated[str, typer.Option(help="One of `erase list methods`, or a .py.")] = registry.DEFAULT_METHOD,
    kind: Annotated[str, typer.Option(help="style, object, unsafe or identity.")] = "style",
    target: Annotated[Several | None, typer.Option("--target", "-t", help="What to erase; repeatable.")] = None,
    anchor: Annotated[
        Several | None, typer.Option("--anchor", "-a", help="What it becomes: one for all targets, or one each.")
    ] = None,
    keep: Annotated[Several | None, typer.Option("--keep", "-k", help="What must stay; repeatable.")] = None,
    option: Annotated[Several | None, typer.Option(help="An option of the method, as key=value; repeatable.")] = None,
    strength: Annotated[float, typer.Option(help="How strong the edit is; 0 changes nothing.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="With a pipeline: the run's folder; else: the edit's file.")
    ] = None,
    allow: Allow = None,
) -> None:
    """Make an edit: a small file that is applied, undone, scaled and exported.

    [bold]erase edit erase-style[/]                                        the edit of a pipeline, in its run's folder
    [bold]erase edit -t noto -a fluent -k blob -k cat -o noto.safetensors[/]    an edit by itself
    """
    from erase.errors import BadTask

    if pipeline is not None:
        if target or anchor or keep or option:
            raise BadTask(
                "give a pipeline or --target, --anchor, --keep and --option, not both; a pipeline names its own."
            )
        _edit_of_pipeline(pipeline, out)
        return
    if registry.is_path(method):  # whoever writes it here has named it
        registry.allow(method)
    task = make_task(kind, target or [], anchors=anchor or [], keeps=keep or [])
    options = dict(parse_option(text) for text in option or [])
    file = out or Path("edit.safetensors")
    _write_edit(file, model, task=task, method=method, options=options, strength=strength)


def make_task(kind: str, targets: Several, *, anchors: Several, keeps: Several) -> Task:
    """The task that the options describe; raises BadTask."""
    from erase.errors import BadTask
    from erase.task import KINDS, Target, Task

    chosen = next((one for one in KINDS if one == kind), None)
    if chosen is None:
        raise BadTask(f'--kind is "{kind}"; expected one of {", ".join(KINDS)}.')
    if len(anchors) not in (0, 1, len(targets)):
        raise BadTask(f"{len(anchors)} anchors for {len(targets)} targets; give none, one for all, or one each.")
    each = anchors * len(targets) if len(anchors) == 1 else anchors or [""] * len(targets)
    pairs = zip(targets, each, strict=True)
    return Task(tuple(Target(name, chosen, anchor) for name, anchor in pairs), tuple(keeps))


def parse_option(text: str) -> tuple[str, Any]:
    """Key and value of `key=value`, the value read as YAML reads it; raises BadOption."""
    from erase.documents import parse_value, shortened
    from erase.errors import BadOption

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadOption(f'--option "{text}" is not of the form key=value, such as "lamb=0.5".')
    return key.strip(), parse_value(value, source=f'--option "{shortened(text)}" (key=value)', error=BadOption)


def _edit_of_pipeline(pipeline: str, out: Path | None) -> None:
    from erase import steps
    from erase.cli._runs import begin
    from erase.cli._watch import ShownWatch

    run = begin(pipeline, out)
    if not run.place.is_first:  # another process of several, which trains along and tells nothing
        steps.help_train(run)
        return
    with run.alone(), ShownWatch() as watch:
        run.begin()
        steps.do("edit", run, watch)
    _tell(steps.load_edit(run), run.edit_file)


def _write_edit(file: Path, model: str, *, task: Task, method: str, options: dict[str, Any], strength: float) -> None:

    from erase.cli._places import check_writable
    from erase.cli._watch import ShownWatch
    from erase.edit import check_strength
    from erase.errors import RunConflict
    from erase.evaluate.observe import Observer
    from erase.evaluate.ranks import this_place
    from erase.methods._work import Work
    from erase.models import open_model
    from erase.options import check_can_edit, make_edit, method_for, train_along

    check_writable(file)
    if file.exists():
        raise RunConflict(f"{file} exists already; give another file by --out.")
    check_strength(strength)
    opened = open_model(model)
    chosen = method_for(method, options, model=opened, task=task)
    check_can_edit(chosen, opened)
    if not this_place().is_first:
        train_along(chosen, opened, task)
        return
    with ShownWatch() as watch:
        watch.begin("edit", f"making the edit of {opened.path.name}, a {opened.family} model, by {method}")
        work = Work(report=watch.count, observe=Observer(opened))
        made = make_edit(chosen, opened, task, work=work, strength=strength)
    made.save(file)
    _tell(made, file)


def _tell(edit: Edit, file: Path) -> None:
    """Prints where an edit lies, and what its method saw of attributes before and after."""
    typer.echo(f"edit  {file}")
    record = edit.info.record
    for target, before, after in zip(
        edit.info.task.get("targets", ()), record.get("before", ()), record.get("after", ()), strict=False
    ):
        each = zip(record["attributes"], before, after, record["wanted"], strict=True)
        shares = ", ".join(f"{name} {old:.0%} to {new:.0%} ({goal:.0%})" for name, old, new, goal in each)
        typer.echo(f"{target['name']}  before to after (wanted): {shares}")
