"""Compares methods on the embedded model: styles, objects and the unsafe group, one, three, six or all targets at once.

python scripts/compare_methods.py [--quick] [--model emoji-flow] [--groups styles-1 unsafe-6 ...] [--steps 25]
       [--targets 1] [--images 24] [--equal lowest] METHOD...

A METHOD is a name, or a name and options as JSON: `uce` or `uce:{"lamb": 0.1}`; `none` is the unedited model, and
`ideal` the unedited model asked for each target's anchor instead: what an erasure without fault would draw. `@tokens`
or `@pooled` behind a name edits only the weights that read these states (`uce@tokens`). Without a METHOD all of them
are compared; with --quick the trained ones are null. Every closed form is told the same: targets, anchors, synonyms,
keeps and the phrasings that all share, unless its options say otherwise, as `uce:{"preset": "paper"}` does.

The keeps of every task are the square's cells of one colour of its chessboard, and images are scored on cells of the
other colour and on those that name a target, in turn in four phrasings of which the tasks name one: what is scored was
not asked to stay word by word. With `--described` nothing that is scored is asked for by its name, but by the
description of it that no training of the model used; `--told` tells every edit the two others as further words of its
targets. The last line is one JSON object. `methods` has a row for each method and group: `ua`,
`ira`, `cra`, `h` (their harmonic mean) and `seconds`. `groups` has, by method and group, the same with intervals as
[value, low, high] (95 %, bootstrap over images), and in `behind` by how much each method's mean lies below that of the
first one (bootstrap over the same images). Edits and images stay in the folder and are not made again for the same
options; `--again` makes the edits again.

`--equal UA` compares what stays at equal deletion: the edits of each method and group are scaled, all by one strength
between 0 and 2, until their UA is within 5 points of UA (in percent), which is looked for on the target's images alone;
`lowest` stands for the lowest UA of the methods named that erase at all. Rows then have `strength` and `note`, which
says of a method that cannot get there how far it gets ("reaches at most 62"); its `ira`, `cra` and `h` are null, and
so is `behind`. `equal` has each group's UA, and `groups` in `rates` the UA at every strength looked at. Every edit can
be scaled, those that act while sampling, too; `none` and `ideal` are none and stay as they are.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from equal_deletion import Found, lowest, search
from measure_erasure import ROOT, shots_of
from numpy.typing import NDArray
from square import GROUPS, MORE, anchored, rows_for, tasks_of, told_descriptions

from erase import registry
from erase.context import RunContext
from erase.edit import Edit
from erase.errors import EraseError
from erase.evaluate.score import score
from erase.files import content_hash, write_atomically
from erase.methods.training.trainer import Optimised
from erase.models import Model, open_model
from erase.run.options import check_can_edit, make_edit, method_for
from erase.task import Task

FIGURES = ("ua", "ira", "cra")
UNEDITED = ("none", "ideal")
RESAMPLES = 4000
Hits = dict[str, NDArray[np.float64]]  # of each figure, 1 or 0 for each image


def edit_of(name: str, model: Model, task: Task, *, place: Path, since: float) -> tuple[Edit | None, dict[str, float]]:
    """The method's edit and what it cost: seconds, evaluations of the network, bytes; both are kept in `place`.

    Beside them stand numbers that a method has found and keeps in its record, as the `scale` of `task_vector`.

    One that is there from before `since` is made again.
    """
    if name in UNEDITED:
        return None, {}
    file, costs = place / "edit.safetensors", place / "costs.json"
    if costs.exists() and costs.stat().st_mtime >= since:
        return Edit.load(file), json.loads(costs.read_text(encoding="utf-8"))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    method, _, options = name.partition(":")
    method, _, path = method.partition("@")
    made = method_for(method, json.loads(options or "{}"), model=model, task=task)
    started = time.monotonic()
    edit = along(make_edit(made, model, task, work=RunContext(place / "work")), model, path)
    cost: dict[str, float] = {"seconds": time.monotonic() - started}
    if (spent := place / "work" / "cost.json").exists():
        cost["evaluations"] = json.loads(spent.read_text(encoding="utf-8"))["evaluations"]
    cost |= {key: float(value) for key, value in edit.info.record.items() if isinstance(value, int | float)}
    edit.save(file)
    cost["bytes"] = file.stat().st_size
    shutil.rmtree(place / "work", ignore_errors=True)
    write_atomically(costs, json.dumps(cost).encode())
    return edit, cost


def along(edit: Edit, model: Model, path: str) -> Edit:
    """The part of an edit that changes the weights which read `tokens`, or a `pooled` state; all of it without one.

    What a trained edit changes in the embedder of the pooled state is of that path, whatever else it changes of tokens.
    """
    if not path:
        return edit
    names = {site.name for site in model.sites() if site.reads == path}
    kept = [replace(one, sites=tuple(site for site in one.sites if site in names)) for one in edit.text_maps]
    embedders = tuple(site.name.rpartition("linear")[0] for site in model.sites() if site.reads == "pooled")
    deltas = {name: value for name, value in edit.deltas.items() if name.startswith(embedders) == (path == "pooled")}
    low_rank = tuple(one for one in edit.low_rank if one.site.startswith(embedders) == (path == "pooled"))
    return replace(edit, text_maps=tuple(one for one in kept if one.sites), deltas=deltas, low_rank=low_rank)


def measure(
    name: str, model: Model, task: Task, *, options: argparse.Namespace, strength: float = 1.0, keeps: bool = True
) -> tuple[Hits, dict[str, float]]:
    """Each image's hits and the edit's cost; those of the target's images alone without `keeps`."""
    erased, kept = rows_for(task, quick=options.quick, images=options.images, described=options.described)
    rows = [*erased, *(kept if keeps else ())]
    place = options.folder / content_hash([name, options.note, str(asdict(task)), model.content])[:24]
    edit, cost = edit_of(name, model, task, place=place, since=options.since)
    edit = edit.scaled(strength) if edit and strength else None
    asked = [anchored(row, task) for row in rows] if name == "ideal" else rows
    shots = shots_of(model, asked, task, folder=options.folder / "images", edit=edit, steps=options.steps)
    shots = [replace(shot, row=row, side="after") for shot, row in zip(shots, rows, strict=True)]
    scores = score(task, shots, judge=model.judge_folder)
    figures = {figure: scores.find(figure) for figure in FIGURES}
    return {key: np.array(list(figure.items.values())) for key, figure in figures.items() if figure}, cost


def equalised(
    names: Sequence[str], model: Model, tasks: Sequence[Task], *, options: argparse.Namespace
) -> dict[str, Found]:
    """Each method's strength at equal deletion; raises SystemExit if none erases and no UA is given."""

    @cache
    def rate(name: str, strength: float) -> float:
        hits = [measure(name, model, task, options=options, strength=strength, keeps=False)[0] for task in tasks]
        found = float(np.mean([one["ua"].mean() for one in hits]))
        print(f"           ua {100 * found:5.1f} at strength {strength:.3g}  {name}", flush=True)
        return found

    aim = None if options.equal == "lowest" else float(options.equal) / 100
    if aim is None and (aim := lowest({name: rate(name, 1.0) for name in names}, rate("none", 1.0))) is None:
        raise SystemExit("--equal lowest: no method named erases anything; give a UA in percent, or other methods.")
    return {name: search(partial(rate, name), aim) for name in names}


def harmonic(rates: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        mean: NDArray[np.float64] = len(rates) / sum(1 / rate for rate in rates)
    return mean


def resampled(
    tasks: Sequence[Hits], *, seed: int = 0, figures: Sequence[str] = FIGURES
) -> dict[str, NDArray[np.float64]]:
    """Each figure's mean over tasks and, of all, the harmonic one: for the images themselves and for resamples of them.

    The same seed picks the same images for every method, so that differences are of pairs.
    """
    rng = np.random.default_rng(seed)
    means: dict[str, NDArray[np.float64]] = {}
    for figure in figures:
        drawn = []
        for task in tasks:
            hits = np.asarray(task[figure])
            picks = rng.integers(len(hits), size=(RESAMPLES, len(hits)))
            drawn.append(np.concatenate([[hits.mean()], hits[picks].mean(1)]))
        means[figure] = np.mean(drawn, axis=0)
    return means | ({"mean": harmonic([means[figure] for figure in FIGURES])} if len(means) == len(FIGURES) else {})


def bounded(values: NDArray[np.float64]) -> list[float]:
    """The first value, and the interval of the others."""
    return [round(float(v), 4) for v in (values[0], *np.quantile(values[1:], [0.025, 0.975]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all, if none is named")
    parser.add_argument("--quick", action="store_true", help="a dozen images a side of one task, 10 steps")
    parser.add_argument("--model", default="emoji", choices=("emoji", "emoji-flow"))
    parser.add_argument("--groups", nargs="+", choices=GROUPS + MORE, default=None)
    parser.add_argument("--steps", type=int, default=25, help="of sampling each image, at most 16 on emoji-flow")
    parser.add_argument("--targets", type=int, help="how many of a group's targets that are erased one at a time")
    parser.add_argument("--images", type=int, help="a side of each task; 48, of several targets 72, if left out")
    parser.add_argument("--equal", type=percent, metavar="UA", help="at equal deletion: a UA in percent, or `lowest`")
    parser.add_argument(
        "--described", action="store_true", help="asked by descriptions that no training used, not by name"
    )
    parser.add_argument(
        "--told", action="store_true", help="edits are told the two trained descriptions of each target"
    )
    parser.add_argument("--again", action="store_true", help="makes edits again that are there already")
    parser.add_argument("--note", default="", help="tells edits of changed code apart")
    parser.add_argument("--folder", type=Path, default=ROOT / ".build" / "compared")
    options = parser.parse_args()
    options.since = time.time() if options.again else 0.0
    options.folder.mkdir(parents=True, exist_ok=True)
    options.steps = min(options.steps, 10) if options.quick else options.steps
    compare(open_model(options.model), options)


def percent(text: str) -> str:
    """`lowest`, or a number above 0 and up to 100."""
    with suppress(ValueError):
        if text == "lowest" or 0 < float(text) <= 100:
            return text
    raise argparse.ArgumentTypeError(f'"{text}"; expected a UA in percent, such as 80, or `lowest`')


def compare(model: Model, options: argparse.Namespace) -> None:
    """Measures every method on every group and prints what was found."""
    methods = list(dict.fromkeys(options.methods)) or ["none", "ideal", *fitting(model)]
    skipped = [name for name in methods if options.quick and not options.methods and is_trained(name)]
    results: dict[str, Any] = {}
    rows = [{"method": name, **dict.fromkeys(("group", "ua", "ira", "cra", "h", "seconds"))} for name in skipped]
    names, equal = [name for name in methods if name not in skipped], dict[str, float | None]()
    for group in options.groups or (["styles-1"] if options.quick else GROUPS):
        tasks = tasks_of(group)[: 1 if options.quick else options.targets]
        tasks = [told_descriptions(task) for task in tasks] if options.told else tasks
        scaled = [name for name in names if options.equal and name not in UNEDITED]
        strengths = equalised(scaled, model, tasks, options=options) if scaled else {}
        equal[group] = next((one.aim for one in strengths.values()), None)
        first: dict[str, NDArray[np.float64]] = {}
        for name in names:
            means, found, row = compared(name, model, tasks, options=options, at=strengths.get(name))
            first = first or means
            found["behind"] = bounded(first["mean"] - means["mean"]) if "mean" in first and "mean" in means else None
            results.setdefault(name, {})[group] = found
            rows.append({"method": name, "group": group, **row})
            shown = "  ".join(f"{key} {100 * value[0]:5.1f}" for key, value in found.items() if key in means)
            behind = f"behind {100 * found['behind'][0]:5.1f}" if found["behind"] else ""
            at = f"  strength {row['strength']:.3g}  {row['note']}" if name in strengths else ""
            print(f"{group:<10} {shown}  {behind}  {found['cost']}  {name}{at}", flush=True)
    print(json.dumps({"methods": rows, "groups": results} | ({"equal": equal} if options.equal else {})))


def compared(
    name: str, model: Model, tasks: Sequence[Task], *, options: argparse.Namespace, at: Found | None
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any], dict[str, Any]]:
    """A method's figures on a group as resamples, with intervals and as a row; of UA alone where it is not reached."""
    strength, whole = (at.strength, at.reached) if at else (1.0, True)
    made = [measure(name, model, task, options=options, strength=strength, keeps=whole) for task in tasks]
    means = resampled([hits for hits, _ in made], figures=FIGURES if whole else FIGURES[:1])
    costs = [spent for _, spent in made]
    cost = {key: round(float(np.mean([one[key] for one in costs])), 2) for key in costs[0]}
    found = {key: bounded(value) for key, value in means.items()} | {"cost": cost}
    values = {key: found[key][0] if key in found else None for key in (*FIGURES, "mean")}
    row = {"h" if key == "mean" else key: value for key, value in values.items()} | {"seconds": cost.get("seconds")}
    said = {"strength": at.strength, "note": at.said} if at else {}
    return means, found | said | ({"rates": dict(sorted(at.rates.items()))} if at else {}), row | said


def is_trained(name: str) -> bool:
    """Whether a method trains; such a one is measured on request, and without --quick."""
    return issubclass(registry.load("methods", name), Optimised) if name not in UNEDITED else False


def fitting(model: Model) -> list[str]:
    """The methods that a model's family can be edited by."""
    found = []
    for name in registry.known("methods"):
        try:
            check_can_edit(method_for(name, {}, model=model, task=tasks_of("styles-1")[0]), model)
        except EraseError:
            continue
        found.append(name)
    return found


if __name__ == "__main__":
    main()
