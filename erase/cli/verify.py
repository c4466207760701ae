"""`erase verify`: the gate. Exit code 0 only if the images prove that the concept is gone and the rest is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erase.cli import _task
from erase.cli._drawing import NONE, Settings, draws

if TYPE_CHECKING:
    from rich.console import Console

    from erase.evaluate.detect import Given as Judges
    from erase.evaluate.edited import Edited as Opened
    from erase.evaluate.protocol import Protocol as Asked
    from erase.evaluate.verify import Result
    from erase.models import Model
    from erase.task import Task

Several = list[str]
Base = Annotated[str, typer.Option("--model", "-m", "--base", "-b", help="The model before the edit.")]
Kind = Annotated[str, typer.Option(help="With --target: style, object, unsafe or identity.")]
Targets = Annotated[
    Several | None, typer.Option("--target", "-t", help="What was erased, if the edit does not say; repeatable.")
]
Synonyms = Annotated[Several | None, typer.Option(help="Another word for the one --target; repeatable.")]
Given = Annotated[
    Several | None, typer.Option("--with", "-w", help="A file or folder that a judge needs, as name=PATH.")
]
Edited = Annotated[
    Path | None, typer.Argument(help="An edit, an edited model, its UNet's tensors or a LoRA.", show_default=False)
]
Protocol = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="One of `erase list protocols`, or a .yaml.",
        show_default="gate for the embedded model, else any-KIND",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of images, page, grid, result.json.")]
Check = Annotated[
    Path | None,
    typer.Option(help="Verify nothing: recompute the verdict of a result.json, by its path, folder or run."),
]


@draws
def verify(
    edited: Edited = None,
    *,
    base: Base = "emoji",
    lora: _task.Loras = None,
    protocol: Protocol = None,
    kind: Kind = "style",
    target: Targets = None,
    synonym: Synonyms = None,
    keep: Annotated[Several | None, typer.Option("--keep", "-k", help="What must stay; repeatable.")] = None,
    given: Given = None,
    out: Out = Path("verify"),
    check: Check = None,
    dry_run: _task.DryRun = False,
    json: Annotated[bool, typer.Option("--json", help="Print result.json instead of the table.")] = False,
    device: _task.Device = None,
    dtype: _task.Dtype = "auto",
    quiet: _task.Quiet = False,
    verbose: _task.Verbose = False,
    allow: _task.Allow = None,
    drawing: Settings = NONE,
) -> None:
    """Verify an edit: exit code 0 if the concept is gone and the rest is not, 3 with the reasons otherwise.

    [bold]erase verify runs/erase-style/edit.safetensors -m emoji[/]
    [bold]erase verify edited -m sd15 --protocol object --with classifier=resnet-50[/]
    """
    from erase.errors import BadOption

    if check is not None:
        raise typer.Exit(_check(check, edited))
    if edited is None:
        raise BadOption("what is to be verified? Give an edit or an edited model, or a result by --check FILE.")
    named, drawn = (kind, target or [], synonym or [], keep or []), (dtype, quiet, drawing)
    model, paths = (base, lora or []), parse_given(given or [])
    result = _verify(edited, model, protocol, named=named, given=paths, out=out, drawn=drawn, dry_run=dry_run)
    if result is None:
        return
    if json:
        typer.echo((out / "result.json").read_text(encoding="utf-8"))
    else:
        from rich.console import Console

        show(Console(), result)
    raise typer.Exit(result.verdict.exit_code)


def _check(file: Path, edited: Path | None) -> int:
    """The exit code of a result, its verdict recomputed and told; raises BadOption, ScoreFailed."""
    from erase.errors import BadOption
    from erase.evaluate.result import check_result

    if edited is not None:
        raise BadOption(f"{edited} and --check {file} are given; one is verified, or the other is checked.")
    file = _result_at(file)
    verdict = check_result(file)
    for reason in verdict.reasons:
        typer.echo(f"{reason.kind}: {reason.text}")
    typer.echo(f"{'FAILED' if verdict.reasons else 'PASSED'}  {file}, recomputed from its own values")
    return verdict.exit_code


def _result_at(path: Path) -> Path:
    """A result's file: the path itself, or that in the folder or in the run of this name."""
    from erase.evaluate.result import FILE
    from erase.run.store import RUNS

    places = (path, path / FILE, RUNS / path / FILE)
    return next((place for place in places if place.is_file()), path)


def _verify(
    edited: Path,
    base: tuple[str, Several],
    protocol: str | None,
    *,
    named: tuple[str, Several, Several, Several],
    given: dict[str, Path],
    out: Path,
    drawn: tuple[str, bool, Settings],
    dry_run: bool,
) -> Result | None:
    """The result; None where only its plan is asked for, or from another process of several."""
    from functools import partial

    from erase.cli._runs import check_writable
    from erase.cli._watch import ShownProgress
    from erase.evaluate import verify as verifying
    from erase.report.verified import write_pages
    from erase.run.attacks import attack_all, check_attacks
    from erase.sampling.ranks import this_rank

    check_writable(out)
    model, opened, task, (chosen, judged) = open_subject(edited, (*base, drawn[0]), protocol, named=named, given=given)
    place = this_rank(out)
    chosen = chosen.drawn(drawn[2])
    check_attacks(chosen.form.attack, task, chosen.sampler, model=opened.model)
    if dry_run:
        show_plan(model, chosen, task, given=judged, out=out)
        return None
    if not place.is_first:
        verifying.draw_share(model, opened, chosen, task=task, given=judged, folder=out, place=place)
        return None
    with ShownProgress(quiet=drawn[1]) as watch, place.present():
        watch.begin("verify", chosen.title)
        what: dict[str, Any] = {"task": task, "given": judged, "folder": out}
        attack = partial(attack_all, model, opened, chosen, **what, report=watch.count) if chosen.form.attack else None
        result = verifying.verify(model, opened, chosen, **what, count=watch.count, place=place, attack=attack)
        write_pages(result)
        return result


def open_subject(
    edited: Path,
    base: tuple[str, Several, str],
    protocol: str | None,
    *,
    named: tuple[str, Several, Several, Several],
    given: dict[str, Path],
) -> tuple[Model, Opened, Task, tuple[Asked, Judges]]:
    """The base model, what is edited, the task, and who judges by which protocol; `base` has its LoRAs and precision.

    `named`: the task's kind, targets, synonyms and keeps, as options name them.
    """
    from erase.evaluate.detect import Given as Judges
    from erase.evaluate.edited import open_edited
    from erase.evaluate.verified_facts import choose_protocol
    from erase.foreign import with_loras
    from erase.models import open_model
    from erase.sampling.attention import dtype_here

    model = with_loras(open_model(base[0], torch_dtype=dtype_here(base[2])), base[1])
    opened = open_edited(edited, model)
    opened.model.torch_dtype = model.torch_dtype
    kind, targets, synonyms, keeps = named
    task = choose_task(opened.task, kind, targets, synonyms=synonyms, keeps=keeps)
    return model, opened, task, choose_protocol(protocol, model, task, given=Judges(given, model.judge_folder))


def show_plan(model: Model, protocol: Asked, task: Task, *, given: Judges, out: Path) -> None:
    """Prints what a verification would ask, draw and look at, and how long its images take; writes nothing."""
    from collections import Counter

    from erase.evaluate.detect import runner_of
    from erase.evaluate.questions import make_cases, rows_of

    cases = make_cases(protocol, task, given.paths)
    runner_of(protocol, task, cases, given=given)  # what is missing is told now
    rows, there = rows_of(cases), len(list((out / "images").glob("*.png")))
    asked = Counter((case.role, case.aspect) for case in cases)
    steps, images = protocol.sampler.steps, max(0, 2 * len(rows) - there)
    time = _task.pace(model, rows, protocol.sampler, images=images)
    typer.echo(f"verify    {protocol.title}: {', '.join(task.names)}")
    for (role, aspect), count in asked.items():
        typer.echo(f"  {role:<7} {count:>5} questions: {aspect}")
    found = f"; {there} are there" if there else ""
    typer.echo(f"images    {2 * len(rows)} before and after, {steps} steps each{found}{time}")
    for form in protocol.form.attack:
        typer.echo(f"attacked  by {form.name}, {form.prompts} prompts of {form.budget} evaluations")
    typer.echo(f"judged    by {', '.join(dict.fromkeys(form.policy.text for form in protocol.form.detector))}")
    typer.echo(f"nothing was written; the verification's folder is {out}")


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

    from erase.evaluate.attacked import attack_lines, headline, read_not_run
    from erase.report.verified import findings_of

    table = Table(title=f"protocol {result.protocol.title}", title_justify="left", header_style="bold", pad_edge=False)
    for heading in ("check", "value", "95 % interval", "images", "required", ""):
        table.add_column(heading, justify="left" if heading in ("check", "") else "right")
    for check in result.verdict.checks:
        interval = f"{100 * check.low:.1f} - {100 * check.high:.1f}"
        mark = "[green]pass[/]" if check.passed else "[red]fail[/]"
        value = f"{100 * check.value:.1f} %"
        table.add_row(escape(check.name), value, interval, str(check.n), f"≥ {100 * check.limit:.0f} %", mark)
    console.print(table)
    for total in result.totals:
        moved = " → ".join(number(value, total.unit) for value in (total.before, total.after))
        console.print(f"  {total.name:<24} {moved}  ({total.better} is better)", highlight=False)
    attacked = *attack_lines(result.facts["attacks"]), *read_not_run(result.folder, result.protocol.form.attack)
    for line in (headline(findings_of(result).scores.figures), *attacked):
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    for asked in filter(None, (one.text for one in result.asked)):
        console.print(f"  {escape(asked)}", highlight=False)
    names = escape(", ".join(result.task.names))
    for reason in result.verdict.reasons:
        console.print(f"[red]{reason.kind}[/]: {escape(reason.text)}", highlight=False)
    if lacking := len(result.verdict.unscored):
        console.print(f"[red]{lacking} pairs lack an image and count against the edit; result.json lists them[/]")
    answer = "[bold red]FAILED[/]" if result.verdict.reasons else "[bold green]PASSED[/]"
    console.print(f"{answer}  {names}  {escape(str(result.folder / 'report.html'))}", highlight=False, soft_wrap=True)


def number(value: float, unit: str) -> str:
    """A total as people read it; a dash where nothing was asked."""
    if value != value:
        return "-"
    return {"share": f"{100 * value:.1f} %", "count": f"{value:.0f}"}.get(unit, f"{value:.3f}")
