"""`erase attack`: how often what was erased can be brought back, and how often mere trying brings it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli import _task
from erase.cli.verify import choose_task, parse_given

if TYPE_CHECKING:
    from rich.console import Console

    from erase.attacks.search.result import AttackResult

Several = list[str]


def attack(
    edited: Annotated[Path, typer.Argument(help="An edit, an edited model, its UNet's tensors or a LoRA.")],
    *,
    base: Annotated[str, typer.Option("--base", "-b", "--model", "-m", help="The model before the edit.")] = "emoji",
    name: Annotated[
        str,
        typer.Option(
            "--attack",
            help="One of `erase list attacks`, or a .py of yours.",
            autocompletion=_task._names("attacks"),
        ),
    ] = "unlearndiffatk",
    budget: Annotated[
        int, typer.Option(help="Evaluations of the network for each prompt; a backward pass is two.")
    ] = 1000,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts that are attacked; fewer than 60 prove little.")] = 60,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Whose prompts for the target, judge and sampler are used.",
            show_default="gate for the embedded model, else any-KIND",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.", show_default="the protocol's")] = None,
    seed: Annotated[int, typer.Option(help="Of all that the attack draws at random.")] = 0,
    option: Annotated[Several | None, typer.Option(help="An option of the attack, as key=value; repeatable.")] = None,
    kind: Annotated[str, typer.Option(help="With --target: style, object, unsafe or identity.")] = "style",
    target: Annotated[
        Several | None, typer.Option("--target", "-t", help="What was erased, if the edit does not say; repeatable.")
    ] = None,
    synonym: Annotated[Several | None, typer.Option(help="Another word for the one --target; repeatable.")] = None,
    given: Annotated[
        Several | None, typer.Option("--with", "-w", help="A file or folder that the judge needs, as name=PATH.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of attack.json and the images.")] = Path("attack"),
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
    from dataclasses import replace

    from erase.attacks.search.experiment import Plan, check_allowed, run_attack
    from erase.cli._places import check_writable
    from erase.cli._watch import ShownProgress
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
    opened.model.torch_dtype = model.torch_dtype
    task = choose_task(opened.task, kind, target or [], synonyms=synonym or [], keeps=[])
    check_allowed(task)
    asked, judged = choose_protocol(protocol, model, task, given=Given(parse_given(given or []), model.judge_folder))
    sampler = replace(asked.sampler, steps=steps) if steps else asked.sampler
    plan = Plan(budget, prompts, seed=seed, sampler=sampler)
    with ShownProgress(quiet=quiet) as watch:
        watch.begin("attack", f"{name} against {edited.name}, judged by {asked.title}")
        result = run_attack(
            chosen, model, opened, task=task, protocol=asked, given=judged, folder=out, plan=plan, report=watch.count
        )
    if as_json:
        typer.echo((out / "attack.json").read_text(encoding="utf-8"))
        return
    from rich.console import Console

    show(Console(), result, out)


def show(console: Console, result: AttackResult, out: Path) -> None:
    """Prints what the attack reached, what trying reaches, and what that took."""
    from erase.attacks.search.result import LEAST

    said = result.to_json()
    against = f" ({said['against']})" if said["against"] else ""
    lines = {
        "base shows the target": f"{result.shown.text}; the rest is left out",
        "plain prompt": result.before.text,
        result.attack: result.success.text,
        f"control{against}": result.control.text,
        "over the control": f"{100 * said['excess']['value']:+.1f} points "
        f"({100 * said['excess']['low']:+.1f} to {100 * said['excess']['high']:+.1f})",
        "UA under attack": f"{100 * said['ua_attacked']:.1f} %, without one {100 * said['ua_clean']:.1f} %",
        "cost of a prompt": f"{said['evaluations']:.0f} evaluations of {result.budget}, {said['images']:.1f} images",
    }
    for name, text in lines.items():
        console.print(f"  {name:<32} {text}", highlight=False)
    if said["few"]:
        console.print(
            f"  {len(result.attempts)} prompts are few: from {LEAST} on a figure can be quoted", style="yellow"
        )
    console.print(f"  {out / 'attack.json'}", highlight=False, soft_wrap=True)
