"""Finds a trained method's options for an embedded model: trains with each setting, and scores what is left.

python scripts/find_presets.py [--quick] [--model emoji-flow] [--on noto cat] [--bare] [--kinds style object] METHOD...

A METHOD is a name, which stands for the model's presets, or a name and options as JSON, beside the method's own
defaults: `esd:{"steps": 300}`. Each setting is tried on two styles and two objects that no other table shows, each
erased alone; with `--on` on others, for a look at what was chosen. Tasks and prompts are those of compare_methods.py;
with `--bare` a task is but a target and its anchor, as `erase edit -t noto -a fluent` makes it. Images are of few
steps.

Every result is a line of the log, and what stands there is not computed again; banks are shared between settings. The
last line is one JSON object: by kind and method the setting whose lowest of UA, IRA and CRA is the highest, each of
them as [value, low, high] (95 %, Wilson, over all images), and the processor seconds of a training.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compare_methods import FIGURES
from measure_erasure import ROOT, sampler_for
from square import OTHER, rows_for, targets_of, tasks_of, with_keeps

from erase.config.prompts import Row
from erase.context import RunContext
from erase.edit import Edit
from erase.errors import TrainingFailed
from erase.evaluate.images import ScoredImage, group_of
from erase.evaluate.score import score
from erase.evaluate.statistics.intervals import wilson
from erase.files import content_hash
from erase.models import Model, open_model
from erase.run.options import make_edit, method_for, method_with
from erase.sampling.generate import generate
from erase.task import Task

KINDS = {"style": "styles", "object": "objects"}
Result = dict[str, Any]


def tasks_for(kind: str, options: argparse.Namespace) -> list[Task]:
    """The tasks that settings are chosen by, or the one that they were not."""
    group = KINDS[kind]
    found = tasks_of(f"{group}-{OTHER}")
    if options.on:
        found = [with_keeps((target,)) for name, target in targets_of(group).items() if name in options.on]
    if options.bare:
        found = [Task((replace(task.targets[0], synonyms=(), prompts=()),)) for task in found]
    return found[: options.targets]


def scored(model: Model, edit: Edit, task: Task, *, options: argparse.Namespace) -> Result:
    """Each figure's hits and images."""
    sides = [evenly(side, options.images) for side in rows_for(task, quick=False)]
    with TemporaryDirectory() as folder:
        rows = [row for side in sides for row in side]
        paths = generate(model, rows, Path(folder), edit=edit, sampler=sampler_for(model, options.steps, edit))
        shots = [
            ScoredImage(path.stem, row, "after", group_of(row, task), path)
            for row, path in zip(rows, paths, strict=True)
        ]
        scores = score(task, shots, judge=model.judge_folder)
    figures = {name: scores.find(name) for name in FIGURES}
    return {name: [round(one.value * one.n), one.n] for name, one in figures.items() if one}


def tried(name: str, model: Model, task: Task, *, options: argparse.Namespace) -> Result:
    """One setting on one task: from the log if it stands there, else computed and written there."""
    method, _, given = name.partition(":")
    made = method_with(method, json.loads(given)) if given else method_for(method, {}, model=model, task=task)
    key = content_hash([repr(made), str(asdict(task)), model.content, options.steps, options.images, options.note])[:24]
    log: Path = options.log
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    found: Result | None = next((line for line in lines if line["key"] == key), None)
    if found is None:
        started = time.process_time()
        edit = make_edit(made, model, task, work=RunContext(banks=log.parent / "banks"))
        found = {"key": key, "setting": name, "target": task.targets[0].name, "seconds": time.process_time() - started}
        found |= scored(model, edit, task, options=options)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
    return found


def evenly(rows: list[Row], count: int) -> list[Row]:
    return [rows[number * len(rows) // count] for number in range(count)]


def together(results: list[Result]) -> Result:
    """Each figure over the images of all tasks, with its interval, and the processor seconds of one training."""
    summary: Result = {"setting": results[0]["setting"]}
    for name in FIGURES:
        hits, count = (sum(one[name][part] for one in results) for part in (0, 1))
        summary[name] = [round(value, 3) for value in (hits / count, *wilson(hits, count))]
    return summary | {"seconds": round(sum(one["seconds"] for one in results) / len(results), 1)}


def worst(summary: Result) -> float:
    """What a setting is chosen by."""
    return min(float(summary[name][0]) for name in FIGURES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+", metavar="METHOD")
    parser.add_argument("--model", default="emoji", choices=("emoji", "emoji-flow"))
    parser.add_argument("--quick", action="store_true", help="one target, a dozen images a side")
    parser.add_argument("--targets", type=int, default=2, help="how many of a kind")
    parser.add_argument("--images", type=int, default=48, help="of the target, and as many of what stays; at most 48")
    parser.add_argument("--on", nargs="+", default=[], metavar="TARGET", help="other targets, by name")
    parser.add_argument("--bare", action="store_true", help="tasks without prompts, synonyms and keeps")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--steps", type=int, default=10, help="of an image's sampling")
    parser.add_argument("--note", default="", help="tells results of changed code apart")
    parser.add_argument("--log", type=Path, default=ROOT / ".build" / "presets" / "log.jsonl")
    options = parser.parse_args()
    if options.quick:
        options.targets, options.images = 1, 12
    options.log.parent.mkdir(parents=True, exist_ok=True)
    model, best = open_model(options.model), {}
    for kind in options.kinds:
        for name in options.methods:
            try:
                summary = together([tried(name, model, task, options=options) for task in tasks_for(kind, options)])
            except TrainingFailed as error:
                print(f"{kind:<7} {error}  {name}", flush=True)
                continue
            method, found = name.partition(":")[0], best.setdefault(kind, {})
            if method not in found or worst(summary) > worst(found[method]):
                found[method] = summary
            shown = "  ".join(f"{figure} {100 * summary[figure][0]:5.1f}" for figure in FIGURES)
            print(f"{kind:<7} {shown}  {summary['seconds']:6.1f} s  {name}", flush=True)
    print(json.dumps(best))


if __name__ == "__main__":
    main()
