"""`erase attack`: how often what was erased can be brought back, and how often mere trying brings it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erase.cli import _task
from erase.cli.verify import Base, Given, Kind, Synonyms, Targets, open_subject, parse_given

if TYPE_CHECKING:
    from erase.attacks.search.result import AttackResult

Several = list[str]
Edited = Annotated[Path, typer.Argument(help="An edit, an edited model, its UNet's tensors or a LoRA.")]
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
Searches = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Parts of the prompts that are searched by themselves.",
        show_default="4 for words, learned ones among them, else 1",
    ),
]
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
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of attack.json and the images.")]


def attack(
    edited: Edited,
    *,
    base: Base = "emoji",
    name: Name = "unlearndiffatk",
    budget: Budget = 1000,
    prompts: Prompts = 60,
    searches: Searches = None,
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
    from dataclasses import replace

    from erase.attacks.search.experiment import Plan, check_allowed, run_attack
    from erase.cli._runs import check_writable
    from erase.cli._watch import ShownProgress
    from erase.registry import name_of
    from erase.run.options import attack_with

    check_writable(out)
    chosen = attack_with(name, dict(map(_task.parse_option, option or [])))
    named: tuple[str, Several, Several, Several] = (kind, target or [], synonym or [], [])
    of, paths = (base, list[str](), dtype), parse_given(given or [])
    model, opened, task, (asked, judged) = open_subject(edited, of, protocol, named=named, given=paths)
    check_allowed(task)
    sampler = replace(asked.sampler, steps=steps) if steps else asked.sampler
    plan = Plan(budget, prompts, seed=seed, sampler=sampler, searches=searches)
    what: dict[str, Any] = {"task": task, "protocol": asked, "given": judged, "folder": out, "plan": plan}
    with ShownProgress(quiet=quiet) as watch:
        watch.begin("attack", f"{name_of(chosen)}, judged by {asked.title}")
        result = run_attack(chosen, model, opened, **what, report=watch.count)
    typer.echo((out / "attack.json").read_text(encoding="utf-8")) if as_json else show(result, out)


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
    if len(said["by_search"]) > 1:
        rates = ", ".join(f"{100 * one['success']:.0f} ({100 * one['control']:.0f})" for one in said["by_search"])
        lines["each search (its control)"] = f"{rates} %"
    for name, text in lines.items():
        console.print(f"  {name:<32} {text}", highlight=False, soft_wrap=True)
    if said["few"]:
        console.print(
            f"  {len(result.attempts)} prompts are few: from {LEAST} on a figure can be quoted", style="yellow"
        )
    console.print(f"  {out / 'attack.json'}", highlight=False, soft_wrap=True)
