"""`erase edit`: only the edit, of a pipeline or from options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erase import registry
from erase.cli import _task
from erase.cli._task import make_task, parse_option, parse_settings, show_plan

if TYPE_CHECKING:
    from erase.edit import Edit
    from erase.methods.closed_form.joined import Beside
    from erase.models import Model
    from erase.task import Task


def edit(
    *,
    pipeline: Annotated[str | None, typer.Argument(help="A pipeline's name or a .yaml.", show_default=False)] = None,
    model: _task.Model = "emoji",
    lora: _task.Loras = None,
    method: _task.Method = registry.DEFAULT_METHOD,
    kind: _task.Kind = "style",
    target: _task.Targets = None,
    targets: _task.TargetsFile = None,
    anchor: _task.Anchors = None,
    synonym: _task.Synonyms = None,
    prompt: _task.Templates = None,
    keep: _task.Keeps = None,
    after: _task.After = None,
    option: _task.Options = None,
    strength: Annotated[float, typer.Option(help="How strong the edit is; 0 changes nothing.")] = 1.0,
    settings: _task.Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="With a pipeline: the run's folder; else: the edit's file.")
    ] = None,
    dry_run: _task.DryRun = False,
    as_json: _task.Json = False,
    device: _task.Device = None,
    quiet: _task.Quiet = False,
    verbose: _task.Verbose = False,
    allow: _task.Allow = None,
) -> None:
    """Make an edit: a small file that is applied, undone, scaled and exported.

    [bold]erase edit erase-style[/]                                        the edit of a pipeline, in its run's folder
    [bold]erase edit -t noto -a fluent -k blob -k cat -o noto.safetensors[/]    an edit by itself
    [bold]erase edit -m sd15 --targets artists.txt --dry-run[/]                 what would be made of a file's targets
    """
    from erase.errors import BadTask

    if pipeline is not None:
        if target or targets or anchor or synonym or prompt or keep or option or lora or after:
            raise BadTask("give a pipeline, whose keys --set changes, or --target and what goes with it, not both.")
        _edit_of_pipeline(pipeline, out, settings or [], dry_run=dry_run, as_json=as_json, quiet=quiet)
        return
    if settings:
        raise BadTask("--set changes a pipeline and none is given; a method's own options are given by --option.")
    words = {"anchors": anchor or [], "keeps": keep or [], "synonyms": synonym or [], "prompts": prompt or []}
    task = make_task(kind, target or [], **words, file=targets)
    told = (method, dict(map(parse_option, option or [])), strength)
    file, base = out or Path("edit.safetensors"), (model, lora or [], after or [])
    if made := _made(file, base, task, told=told, dry_run=dry_run, quiet=quiet):
        made.save(file)
        _tell(made, file, as_json=as_json)


def _edit_of_pipeline(
    pipeline: str, out: Path | None, settings: list[str], *, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    from erase.cli._runs import begin
    from erase.cli._watch import ShownProgress
    from erase.run import steps

    run = begin(pipeline, out, parse_settings(settings))
    if dry_run:
        show_plan(run)
        return
    if not run.place.is_first:  # another process of several, which trains along and tells nothing
        steps.train_as_rank(run)
        return
    with run.alone(), ShownProgress(quiet=quiet) as watch:
        run.begin()
        steps.do("edit", run, watch)
    _tell(steps.load_edit(run), run.edit_file, as_json=as_json)


def _made(
    file: Path,
    model: tuple[str, list[str], list[Path]],
    task: Task,
    *,
    told: tuple[str, dict[str, Any], float],
    dry_run: bool,
    quiet: bool,
) -> Edit | None:
    """The edit that options describe; None where only its plan is asked for, or by another process of several."""
    from erase.cli._runs import check_writable
    from erase.cli._watch import ShownProgress
    from erase.context import RunContext
    from erase.edit import Edit, check_strength
    from erase.errors import RunConflict
    from erase.evaluate.label_samples import Observer
    from erase.foreign import with_loras
    from erase.methods.closed_form.joined import beside
    from erase.models import open_model
    from erase.run.options import check_can_edit, join_training, make_edit, method_for
    from erase.sampling.ranks import this_rank

    method, strength = told[:2], told[2]
    if registry.is_path(method[0]):  # whoever writes it here has named it
        registry.allow(method[0])
    check_writable(file)
    if file.exists():
        raise RunConflict(f"{file} exists already; give another file by --out.")
    check_strength(strength)
    opened = with_loras(open_model(model[0]), model[1])
    chosen = method_for(method[0], method[1], model=opened, task=task)
    check_can_edit(chosen, opened)
    earlier = [Edit.load(one) for one in model[2]]
    if dry_run:
        _show_plan(opened, beside(chosen, opened, task, earlier=earlier), chosen, file=file)
        return None
    if not this_rank().is_first:
        join_training(chosen, opened, beside(chosen, opened, task, earlier=earlier).whole)
        return None
    with ShownProgress(quiet=quiet) as watch:
        watch.begin("edit", f"making the edit of {opened.path.name}, a {opened.family} model, by {method[0]}")
        work = RunContext(report=watch.count, observe=Observer(opened))
        return make_edit(chosen, opened, task, work=work, strength=strength, earlier=earlier)


def _show_plan(model: Model, near: Beside, method: Any, *, file: Path) -> None:
    """Prints what an edit would be made of; writes nothing."""
    from dataclasses import asdict

    task, joined = near.own, len(near.whole.targets) - len(near.own.targets)
    options = ", ".join(f"{key} {value}" for key, value in asdict(method).items() if value not in ("", (), None))
    typer.echo(
        f"model     {model.title}, a {model.family} model with {len(model.sites())} weights that read the prompt"
    )
    for target in task.targets:
        other = f", also called {', '.join(target.synonyms)}" if target.synonyms else ""
        typer.echo(f"target    {target.name} → {target.anchor or 'nothing'}{other}")
    typer.echo(f"keeps     {len(task.keeps)} concepts and {len(task.prompts)} prompts")
    if joined:
        typer.echo(f"together  with {joined} target{'s' * (joined > 1)} of earlier edits")
    typer.echo(f"method    {registry.name_of(method)}: {options}")
    typer.echo(f"nothing was written; the edit would be {file}")


def _tell(edit: Edit, file: Path, *, as_json: bool) -> None:
    """Prints where an edit lies, and what its method saw of attributes before and after."""
    from dataclasses import asdict

    if as_json:
        info = asdict(edit.info)
        facts = {"edit": str(file), "content": edit.content, "weights": len(edit.touches), "rank": edit.rank}
        typer.echo(json.dumps({**facts, **info}, indent=1, ensure_ascii=False))
        return
    typer.echo(f"edit  {file}")
    record = edit.info.record
    for target, before, after in zip(
        edit.info.task.get("targets", ()), record.get("before", ()), record.get("after", ()), strict=False
    ):
        each = zip(record["attributes"], before, after, record["wanted"], strict=True)
        shares = ", ".join(f"{name} {old:.0%} to {new:.0%} ({goal:.0%})" for name, old, new, goal in each)
        typer.echo(f"{target['name']}  before to after (wanted): {shares}")
