"""`erase attack`: how often what was erased can be brought back, and how often mere trying brings it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli import _task
from erase.cli.verify import choose_task, parse_given

if TYPE_CHECKING:
    from erase.attacks.search.attack import Attack
    from erase.attacks.search.result import AttackResult
    from erase.evaluate.detect import Given as Given_
    from erase.evaluate.protocol import Protocol as JudgedBy
    from erase.evaluate.verify import Edited as Opened
    from erase.models import Model
    from erase.task import Task

Several = list[str]
Edited = Annotated[Path, typer.Argument(help="An edit, an edited model, its UNet's tensors or a LoRA.")]
Base = Annotated[str, typer.Option("--base", "-b", "--model", "-m", help="The model before the edit.")]
Name = Annotated[
    str,
    typer.Option(
        "--attack",
        help="One of `erase list attacks`, or a .py of yours.",
        autocompletion=_task._names("attacks"),
    ),
]
Budget = Annotated[int, typer.Option(help="Evaluations of the network for each prompt; a backward pass is two.")]
Prompts = Annotated[int, typer.Option(min=1, help="Prompts that are attacked; fewer than 60 prove little.")]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="Whose prompts for the target, judge and sampler are used.",
        show_default="gate for the embedded model, else any-KIND",
    ),
]
Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps.", show_default="the protocol's")]
Seed = Annotated[int, typer.Option(help="Of all that the attack draws at random.")]
Options = Annotated[Several | None, typer.Option(help="An option of the attack, as key=value; repeatable.")]
Kind = Annotated[str, typer.Option(help="With --target: style, object, unsafe or identity.")]
Targets = Annotated[
    Several | None, typer.Option("--target", "-t", help="What was erased, if the edit does not say; repeatable.")
]
Synonyms = Annotated[Several | None, typer.Option(help="Another word for the one --target; repeatable.")]
Given = Annotated[
    Several | None, typer.Option("--with", "-w", help="A file or folder that the judge needs, as name=PATH.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of attack.json and the images.")]


def attack(
    edited: Edited,
    *,
    base: Base = "emoji",
    name: Name = "unlearndiffatk",
    budget: Budget = 1000,
    prompts: Prompts = 60,
    protocol: Protocol = None,
    steps: Steps = None,
    seed: Seed = 0,
    option: Options = None,
    kind: Kind = "style",
    target: Targets = None,
    synonym: Synonyms = None,
    given: Given = None,
    out: Out = Path("attack"),
    as_json: _task.Json = False,
    device: _task.Device = None,
    dtype: _task.Dtype = "auto",
    quiet: _task.Quiet = False,
    verbose: _task.Verbose = False,
    allow: _task.Allow = None,
) -> None:
    """Attack an edited model: can what it was made to forget be brought back?

    [bold]erase attack runs/erase-style/edit.safetensors[/]                         words that bring it back
    [bold]erase attack edited -m sd15 --attack concept_inversion --budget 2000[/]   a word that is learned for it
    """
    from erase.cli._places import check_writable
    from erase.evaluate.detect import Given
    from erase.evaluate.verified_facts import choose_protocol
    from erase.evaluate.verify import open_edited
    from erase.models import open_model
    from erase.run.options import attack_with
    from erase.sampling.attention import dtype_here

    check_writable(out)
    chosen = attack_with(name, dict(map(_task.parse_option, option or [])))
    model = open_model(base, torch_dtype=dtype_here(dtype))
    opened = open_edited(edited, model)
    task = choose_task(opened.task, kind, target or [], synonyms=synonym or [], keeps=[])
    judged = choose_protocol(protocol, model, task, given=Given(parse_given(given or []), model.judge_folder))
    result = _attacked(
        chosen, (model, opened), task, judged=judged, numbers=(budget, prompts, seed, steps), out=out, quiet=quiet
    )
    if as_json:
        typer.echo((out / "attack.json").read_text(encoding="utf-8"))
    else:
        show(result, out)


def _attacked(
    chosen: Attack,
    models: tuple[Model, Opened],
    task: Task,
    *,
    judged: tuple[JudgedBy, Given_],
    numbers: tuple[int, int, int, int | None],
    out: Path,
    quiet: bool,
) -> AttackResult:
    """The result of an attack, its progress shown; `numbers` are budget, prompts, seed and steps."""
    from dataclasses import replace

    from erase.attacks.search.experiment import Plan, check_allowed, run_attack
    from erase.cli._watch import ShownProgress
    from erase.registry import name_of

    check_allowed(task)
    models[1].model.torch_dtype = models[0].torch_dtype
    (protocol, given), (budget, prompts, seed, steps) = judged, numbers
    sampler = replace(protocol.sampler, steps=steps) if steps else protocol.sampler
    plan = Plan(budget, prompts, seed=seed, sampler=sampler)
    with ShownProgress(quiet=quiet) as watch:
        watch.begin("attack", f"{name_of(chosen)}, judged by {protocol.title}")
        return run_attack(
            chosen, *models, task=task, protocol=protocol, given=given, folder=out, plan=plan, report=watch.count
        )


def show(result: AttackResult, out: Path) -> None:
    """Prints what the attack reached, what trying reaches, and what that took."""
    from rich.console import Console

    from erase.attacks.search.result import LEAST

    console = Console()
    said = result.to_json()
    against = f" ({said['against']})" if said["against"] else ""
    lines = {
        "base shows the target": f"{result.shown.text}; the rest is left out",
        "plain prompt": result.before.text,
        result.attack: result.success.text,
        f"control{against}": result.control.text,
        "over the control": f"{100 * said['excess']['value']:+.1f} points "
        f"({100 * said['excess']['low']:+.1f} to {100 * said['excess']['high']:+.1f})",
        "UA under attack": f"{result.withstood.text}, without one {100 * said['ua_clean']:.1f} %",
        "cost of a prompt": f"{said['evaluations']:.0f} evaluations of {result.budget}, {said['images']:.1f} images",
    }
    for name, text in lines.items():
        console.print(f"  {name:<32} {text}", highlight=False)
    if said["few"]:
        console.print(
            f"  {len(result.attempts)} prompts are few: from {LEAST} on a figure can be quoted", style="yellow"
        )
    console.print(f"  {out / 'attack.json'}", highlight=False, soft_wrap=True)
