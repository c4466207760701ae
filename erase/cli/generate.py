"""`erase generate`: only the images, of a run or from options."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erase.cli import _task
from erase.cli._drawing import NONE, Settings, draws
from erase.cli._runs import do_step, tell_notes

if TYPE_CHECKING:
    from erase.config.prompts import Row
    from erase.edit import Edit
    from erase.sampling.sampler import Sampler

Several = list[str]


@draws
def generate(
    *,
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder, or its name under runs/.", show_default=False)
    ] = None,
    model: _task.Model = "emoji",
    lora: _task.Loras = None,
    edit: Annotated[Path | None, typer.Option("--edit", "-e", help="An edit, a LoRA, or edited tensors.")] = None,
    strength: Annotated[float, typer.Option(help="Strength at which the edit is applied.")] = 1.0,
    prompt: Annotated[Several | None, typer.Option("--prompt", "-p", help="A prompt; repeatable.")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="A prompt set's name, a .yaml, .csv, .tsv, .jsonl or .txt.")
    ] = None,
    where: Annotated[
        Several | None, typer.Option(help="Only these prompts of the set, by a label or a column, as style=noto.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option("--seed", "-s", help="A seed; repeatable.")] = None,
    attention: Annotated[str, typer.Option(help="sdpa, or xformers on CUDA.")] = "sdpa",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the images.")] = Path("images"),
    as_json: _task.Json = False,
    device: _task.Device = None,
    dtype: _task.Dtype = "auto",
    quiet: _task.Quiet = False,
    verbose: _task.Verbose = False,
    allow: _task.Allow = None,
    drawing: Settings = NONE,
) -> None:
    """Generate a run's images, or any others, before and after an edit.

    [bold]erase generate runs/erase-style[/]                       what is still missing of a run
    [bold]erase generate -p "a cat in noto style" -e noto.safetensors[/]    one prompt, before and after
    [bold]erase generate --prompts emoji-square --where style=noto[/]       some prompts of a set
    """
    from erase.errors import BadPrompts

    if run is not None:
        if prompt or prompts or where or seed or edit or lora or drawing or dtype != "auto":
            raise BadPrompts(
                "give a run's folder, or prompts, seeds, an edit and settings, not both; a run names its own."
            )
        tell([do_step(run, "generate", quiet=quiet).folder], as_json=as_json)
        return
    from erase.sampling.sampler import Sampler

    sampler = Sampler(**drawing, attention=attention)
    rows = choose_rows(prompt or [], prompts, where=where or [], seeds=seed or [])
    drawn = (model, dtype, lora or [])
    made = generate_sides(rows, drawn, edit=edit, strength=strength, sampler=sampler, out=out, quiet=quiet)
    tell(made, as_json=as_json)


def tell(folders: list[Path], *, as_json: bool) -> None:
    """Prints where the images lie."""
    if as_json:
        typer.echo(json.dumps({"images": [str(folder) for folder in folders]}, ensure_ascii=False))
        return
    for folder in folders:
        typer.echo(f"images  {folder}")


def choose_rows(prompts: Several, prompt_set: str | None, *, where: Several, seeds: list[int]) -> tuple[Row, ...]:
    """The rows that the options describe; raises BadPrompts."""
    from erase.config.prompts import Row, load_prompts
    from erase.errors import BadPrompts

    if not prompts and prompt_set is None:
        raise BadPrompts("nothing to generate: give a run's folder, --prompt, or --prompts with a set's name.")
    if where and prompt_set is None:
        raise BadPrompts("--where chooses among the prompts of a set; name the set by --prompts.")
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**63]:
        raise BadPrompts(f"--seed is {wrong[0]}; expected a whole number from 0 to 2^63 - 1.")
    rows = tuple(Row(prompt, seed) for prompt in prompts for seed in seeds or [0])
    if prompt_set is None:
        return rows
    words: dict[str, list[str]] = {}
    for text in where:
        axis, equals, word = text.partition("=")
        if not equals:
            raise BadPrompts(f'--where "{text}" is not of the form axis=word, such as style=noto.')
        words.setdefault(axis.strip(), []).append(word.strip())
    chosen = load_prompts(prompt_set)
    tell_notes(chosen.notes)
    own = all(line.seed is not None for line in chosen.lines)
    return rows + chosen.rows(seeds=seeds or ([] if own else [0]), where=words)


def generate_sides(
    rows: tuple[Row, ...],
    model: tuple[str, str, list[str]],
    *,
    edit: Path | None,
    strength: float,
    sampler: Sampler,
    out: Path,
    quiet: bool = False,
) -> list[Path]:
    """The folders of the images that were made: before, and after where there is an edit.

    `model`: its name, the precision in which it draws, and the LoRAs in it.
    """
    from erase.cli._runs import check_writable
    from erase.cli._watch import ShownProgress
    from erase.foreign import edit_in, with_loras
    from erase.models import open_model
    from erase.sampling.attention import dtype_here
    from erase.sampling.ranks import stream_share, this_rank

    check_writable(out)
    opened = with_loras(open_model(model[0], torch_dtype=dtype_here(model[1])), model[2])
    sides: dict[str, Edit | None] = {"before": None}
    if edit is not None:
        sides["after"] = edit_in(edit, opened).scaled(strength)
    place = this_rank(out)
    if place.is_first and (line := opened.cut_line([row.prompt for row in rows])):
        typer.echo(line, err=True)
    with ShownProgress(quiet=quiet) as watch, place.present():
        watch.begin("generate", "making the images")
        for side, applied in sides.items():
            progress = partial(watch.count, side) if place.is_first else None
            for _ in stream_share(
                opened, rows, out / side, place=place, edit=applied, sampler=sampler, progress=progress
            ):
                pass
    return [out / side for side in sides]
