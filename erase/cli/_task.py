"""Options that several commands share, each written once, and the task that they describe."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erase import registry

if TYPE_CHECKING:
    from erase.config.prompts import Row
    from erase.models import Model as OpenModel
    from erase.run.store import Run
    from erase.sampling.sampler import Sampler
    from erase.task import Target, Task

Several = list[str]
CARDS = "CUDA_VISIBLE_DEVICES"


def _allow(paths: Several | None) -> Several | None:
    for path in paths or ():
        registry.allow(path)
    return paths


def choose_device(given: str | None) -> str | None:
    """Lets this process see that device alone; raises BadOption for one that is not here."""
    from erase.errors import BadOption

    if given is None:
        return None
    match = re.fullmatch(r"cpu|mps|cuda(?::(\d+))?", given)
    if match is None:
        raise BadOption(f'--device is "{given}"; expected cpu, mps, cuda or a card by its number, such as cuda:1.')
    if os.environ.get("LOCAL_RANK") is not None:
        raise BadOption("--device is given, and the launcher gives each process its own card; leave one of them out.")
    if given == "cpu":
        os.environ[CARDS] = ""
        return given
    import torch

    if given == "mps" and not torch.backends.mps.is_available():
        raise BadOption('--device is "mps", and no Apple GPU is here; give cpu, or leave it out.')
    if given == "mps":
        return given
    count = torch.cuda.device_count()
    if int(match[1] or 0) >= count:
        raise BadOption(f'--device is "{given}", and {count or "no"} CUDA devices are here; give cpu, or leave it out.')
    seen = [card for card in os.environ.get(CARDS, "").split(",") if card] or [str(card) for card in range(count)]
    if match[1]:
        os.environ[CARDS] = seen[int(match[1])]
    return given


def _listen(verbose: bool) -> bool:
    if verbose:
        logging.getLogger("erase").setLevel(logging.INFO)
        logging.basicConfig(format="%(message)s")
    return verbose


def _names(kind: str) -> Callable[[str], list[str]]:
    """What a shell completes of the names of a kind."""
    return lambda incomplete: [name for name in registry.known(kind) if name.startswith(incomplete)]


DTYPES = ("auto", "float32", "float16", "bfloat16")
MODEL_HELP = (
    "An embedded model's name, a folder, a single file, a hub id, or FILE@FOLDER for a transformer with its parts."
)
Model = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
Method = Annotated[
    str, typer.Option(help="A name from `erase list methods`, or your own .py file.", autocompletion=_names("methods"))
]
Kind = Annotated[str, typer.Option(help="style, object, unsafe or identity.")]
Loras = Annotated[
    Several | None,
    typer.Option(
        "--lora", metavar="FILE", help="A LoRA to fuse into the model first, as FILE or FILE=0.8; repeatable."
    ),
]
Targets = Annotated[Several | None, typer.Option("--target", "-t", help="What to erase; repeatable.")]
TargetsFile = Annotated[
    Path | None,
    typer.Option("--targets", metavar="FILE", help="A file of targets: one per line, or a column of a .csv."),
]
Anchors = Annotated[
    Several | None,
    typer.Option("--anchor", "-a", help="What the target becomes: one for all targets, or one for each."),
]
Synonyms = Annotated[
    Several | None,
    typer.Option("--synonym", help="Another word for the target, erased with it; TARGET=WORD if several; repeatable."),
]
Templates = Annotated[
    Several | None,
    typer.Option("--prompt", "-p", help='A prompt template for the target, such as "a cat in {} style".'),
]
Keeps = Annotated[
    Several | None, typer.Option("--keep", "-k", help="What must stay, such as cat or object:cat; repeatable.")
]
After = Annotated[
    list[Path] | None,
    typer.Option("--after", help="An earlier edit of the same model, which this one will be added to; repeatable."),
]
Options = Annotated[Several | None, typer.Option("--option", help="A method option as key=value; repeatable.")]
Settings = Annotated[
    Several | None,
    typer.Option("--set", help="Override a pipeline value, such as edit.method=uce; repeatable."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done; nothing is written.")]
Device = Annotated[
    str | None,
    typer.Option("--device", callback=choose_device, help="cpu, cuda or cuda:N; by default a GPU if there is one."),
]
_DTYPE = typer.Option("--dtype", help=f"Precision of images: {', '.join(DTYPES)} (auto: float32 on the CPU).")
Dtype = Annotated[str, _DTYPE]
DtypeIfGiven = Annotated[str | None, _DTYPE]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", callback=_listen, help="Also show how long each step takes.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Allow = Annotated[
    Several | None,
    typer.Option(
        "--allow",
        metavar="FILE.py",
        callback=_allow,
        help="Trust this Python file: a pipeline or an option may run its code; repeatable.",
        show_default=False,
    ),
]


def make_task(
    kind: str,
    targets: Sequence[str],
    *,
    anchors: Sequence[str] = (),
    keeps: Sequence[str] = (),
    synonyms: Sequence[str] = (),
    prompts: Sequence[str] = (),
    file: Path | None = None,
) -> Task:
    """The task that the options describe; `file` names further targets. Raises BadTask."""
    from erase.errors import BadTask
    from erase.task import KINDS, Target, Task

    chosen = next((one for one in KINDS if one == kind), None)
    if chosen is None:
        raise BadTask(f'--kind is "{kind}"; expected one of {", ".join(KINDS)}.')
    listed = read_targets(file, kind) if file is not None else []
    names = [*targets, *(name for name, _ in listed)]
    if len(anchors) not in (0, 1, len(names)):
        raise BadTask(f"{len(anchors)} anchors for {len(names)} targets; give none, one for all, or one each.")
    own = [*("" for _ in targets), *(anchor for _, anchor in listed)]
    each = list(anchors) * len(names) if len(anchors) == 1 else list(anchors) or own
    words = _words(synonyms, names)
    pairs = zip(names, each, strict=True)
    return Task([Target(name, chosen, anchor, words.get(name, ()), tuple(prompts)) for name, anchor in pairs], keeps)


def with_synonyms(task: Task, synonyms: Sequence[str]) -> Task:
    """The task with other words for its targets in place of those that it has; raises BadTask."""
    from dataclasses import replace

    words = _words(synonyms, task.names)
    targets: list[Target | str] = [
        replace(one, synonyms=words[one.name]) if one.name in words else one for one in task.targets
    ]
    return type(task)(targets, task.keeps, task.prompts)


def _words(synonyms: Sequence[str], targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The synonyms of each target: WORD of the only one, or TARGET=WORD."""
    from erase.errors import BadTask

    found: dict[str, tuple[str, ...]] = {}
    for text in synonyms:
        target, equals, word = text.partition("=")
        if not equals and len(targets) == 1:
            target, word = targets[0], text
        if target.strip() not in targets:
            of = f"expected TARGET=WORD with one of the targets {', '.join(targets)}"
            raise BadTask(f'--synonym "{text}" does not say whose it is; {of}.')
        found[target.strip()] = (*found.get(target.strip(), ()), word.strip())
    return found


def read_targets(file: Path, kind: str) -> list[tuple[str, str]]:
    """Targets and their anchors ("" for none) of a file: one a line, or the column of a .csv or .tsv.

    That is `target`, `concept` or `name`, one of the kind (`artist`, `class`, ...), or the only column there is; each
    target once. Raises BadTask.
    """
    from erase.config import documents
    from erase.config.columns import column_of, separated
    from erase.errors import BadTask

    text = documents.read_text(file, error=BadTask)
    if file.suffix.lower() not in (".csv", ".tsv"):
        found = [(line.strip(), "") for line in text.splitlines() if line.strip()]
    else:
        columns, records = separated(file, text)
        name, anchor = column_of(columns, kind), next((one for one in columns if one.strip().lower() == "anchor"), None)
        if name is None:
            raise BadTask(f'{file} has no column "target"; its columns: {", ".join(columns) or "none"}.')
        cells = [(record.get(name) or "", (record.get(anchor) or "") if anchor else "") for _, record in records]
        found = [(one.strip(), other.strip()) for one, other in cells if one.strip()]
    if not found:
        raise BadTask(f"{file} names no target; expected one a line.")
    unique: dict[str, str] = {}
    for one, other in found:
        unique.setdefault(one, other)
    return list(unique.items())


def parse_option(text: str, *, flag: str = "--option") -> tuple[str, Any]:
    """Key and value of `key=value`, the value read as YAML reads it; raises BadOption."""
    from erase.config.documents import parse_value, shortened
    from erase.errors import BadOption

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadOption(f'{flag} "{text}" is not of the form key=value, such as "lamb=0.5".')
    return key.strip(), parse_value(value, source=f'{flag} "{shortened(text)}" (key=value)', error=BadOption)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """The keys of a pipeline that `--set` gives other values; a method's path is thereby named. Raises BadOption."""
    found = dict(parse_option(text, flag="--set") for text in texts)
    method = found.get("edit.method")
    if isinstance(method, str) and registry.is_path(method):
        registry.allow(method)
    return found


def show_plan(run: Run, *, timed: bool = False) -> None:
    """Prints what a run would make, step by step, and if `timed` how long its images take; writes nothing."""
    from erase.run import steps

    recipe, rows = run.recipe, run.recipe.make_rows()
    changes = ", ".join(f"{target.name} → {target.anchor or 'nothing'}" for target in run.task.targets)
    kept = f"{len(run.task.keeps)} concepts and {len(run.task.prompts)} prompts must stay"
    prompts = len({row.prompt for row in rows})
    there = sum(len(list(run.images(side).glob("*.png"))) for side in ("before", "after"))
    details = {
        "edit": f"{recipe.edit.method} on {recipe.model}: {changes}; {kept}",
        "generate": f"{2 * len(rows)} images of {prompts} prompts before and after, {recipe.generate.steps} steps each"
        + (f"; {there} are there" if there else "")
        + (pace(run.model, rows, recipe.make_sampler(), images=2 * len(rows) - there) if timed else ""),
        "attack": ", ".join(f"{one.name} of {one.budget} evaluations" for one in recipe.attack),
        "export": ", ".join(recipe.export) or "nothing",
    }
    for name, step in steps.STEPS.items():
        if step.is_asked(recipe):
            done = "done already" if run.is_begun and steps.is_done(name, run) else "to do"
            typer.echo(f"{name:<9} {done:<13} {details.get(name, step.text)}")
    typer.echo(f"nothing was written; the run's folder is {run.folder}")


def pace(model: OpenModel, rows: Sequence[Row], sampler: Sampler, *, images: int) -> str:
    """How long so many images take by a short draw, as the end of a line; empty of none."""
    if images <= 0:
        return ""
    from erase.sampling.pace import about, seconds_for

    typer.echo("drawing a few images with few steps, to tell how long it takes ...", err=True)
    return f"; {about(seconds_for(model, rows, sampler, images=images))} on this machine"
